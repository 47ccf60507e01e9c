"""A plugin for tests/faults: steps take a moment, and what goes wrong is asked for by files.

In $ERMGAP_TEST, `hang` makes the next step wait for ever, `hunger` makes it take memory until it
is stopped, `nan` makes the objective of its trial not finite; the step takes the file. `saving`
lies there while a checkpoint is half written.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

from ermgap.objective.losses import LOSSES

STEP_S = 0.25
SAVE_S = 0.3
PLACE = Path(os.environ["ERMGAP_TEST"])


def asked(name: str) -> bool:
    """Whether a mishap is asked for; it is then, once."""
    try:
        (PLACE / name).unlink()
    except FileNotFoundError:
        return False
    return True


def mishap(call):
    def slow(self, sums, fairness_weight):
        time.sleep(STEP_S)
        if asked("hang"):
            time.sleep(3600)
        if asked("hunger"):
            (PLACE / "hungry").write_text(str(os.getpid()))
            taken = []
            while True:
                taken.append(bytearray(b"x") * 2**24)  # written, so that it is really taken
                time.sleep(0.01)
        value = call(self, sums, fairness_weight)
        if asked("nan"):
            self.sick = True
        return value * float("nan") if getattr(self, "sick", False) else value

    return slow


for loss in list(LOSSES):
    LOSSES[loss].__call__ = mishap(LOSSES[loss].__call__)

save = torch.save


def slow_save(state, path):
    """Half of the file, a pause, then all of it: a kill may come in between."""
    save(state, path)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    (PLACE / "saving").touch()
    time.sleep(SAVE_S)
    (PLACE / "saving").unlink(missing_ok=True)
    Path(path).write_bytes(whole)


torch.save = slow_save
