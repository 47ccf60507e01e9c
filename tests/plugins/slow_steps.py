"""A plugin for tests: every step takes longer while a file named `slow` lies in $ERMGAP_TEST.

So a test has time to kill a process in the middle of an epoch, and the rest of the sweep is quick.
Both losses of a sweep's first two trials become ERM: they train the same, and one that was broken
off can be compared with one that was not.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from ermgap.objective.losses import ERM, LOSSES

STEP_S = 0.5
GATE = Path(os.environ["ERMGAP_TEST"]) / "slow"


class Slow(ERM):
    """ERM, with a pause in each step."""

    def __call__(self, sums, fairness_weight):
        if GATE.exists():
            time.sleep(STEP_S)
        return super().__call__(sums, fairness_weight)


LOSSES["erm"] = LOSSES["minmaxgap"] = Slow
