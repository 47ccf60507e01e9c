"""A plugin for tests: every step takes longer while a file named `slow` lies in $ERMGAP_TEST.

So a test has time to kill a process in the middle of an epoch, and the rest of the sweep is quick.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from ermgap.objective.losses import LOSSES

STEP_S = 0.5
GATE = Path(os.environ["ERMGAP_TEST"]) / "slow"


def slowed(loss: type) -> type:
    """The loss, with a pause in each step."""

    class Slow(loss):
        def __call__(self, sums, weight):
            if GATE.exists():
                time.sleep(STEP_S)
            return super().__call__(sums, weight)

    return Slow


for _name in ("erm", "minmaxgap"):
    LOSSES[_name] = slowed(LOSSES[_name])
