"""TensorBoard events of a sweep: a run per trial, and `sweep` for the hypervolume and the front.

Written by the broker alone, through tensorboardX, which needs no torch. After a resume the events
go on where the records end: steps are our own epochs. Whatever is slow to import is imported by the
thread that writes: every Tune trial and every worker imports the broker's module.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import front
from ermgap.records import Records

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class Events:
    """Writes `DIR/tb` from a thread of its own: drawing a front takes a second, for which no slot
    shall wait. A failure to write or draw is logged and never stops a sweep.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.folder = Path(records.directory) / "tb"
        self.writers: dict[str, SummaryWriter] = {}
        self.ends = sum(trial.ended for trial in records.trials())
        self.pen = ThreadPoolExecutor(1)

    def epoch(self, row: dict) -> None:
        """Scalars of one committed epoch."""
        self.pen.submit(_logged, self._epoch, row)

    def ended(self, chosen: dict, trial_id: str, selected: dict) -> None:
        """hparams with the objectives, then the sweep's hypervolume and front."""
        self.pen.submit(_logged, self._ended, chosen, trial_id, selected)

    def close(self) -> None:
        """Wait until everything is written."""
        self.pen.submit(_logged, self._close).result()

    def _epoch(self, row: dict) -> None:
        writer = self._writer(row["trial_id"])
        for name, value in scalars(row).items():
            if value is not None and math.isfinite(value):
                writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    def _ended(self, chosen: dict, trial_id: str, selected: dict) -> None:
        objectives = {
            f"objective/{name}": float(selected[name])
            for name in self.records.sweep["objectives"]
            if selected.get(name) is not None
        }
        if objectives:
            self._writer(trial_id).add_hparams(chosen, objectives, name="hparams")
            self._writer(trial_id).flush()
        self.ends += 1
        from analysis import figures

        info = front.info(self.records)
        self._writer("sweep").add_scalar("sweep/hypervolume", info.hypervolume, self.ends)
        image = figures.front_array(info)
        self._writer("sweep").add_image("sweep/front", image, self.ends, dataformats="HWC")
        self._writer("sweep").flush()

    def _close(self) -> None:
        for writer in self.writers.values():
            writer.close()
        self.writers.clear()

    def _writer(self, run: str) -> SummaryWriter:
        if run not in self.writers:
            self.writers[run] = _writer_class()(str(self.folder / run), write_to_disk=True)
        return self.writers[run]


def _writer_class() -> type[SummaryWriter]:
    """tensorboardX imports torch where it can, for tensors that it is never given here: 1 s."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # an import of it fails
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def _logged(function: Callable, *arguments) -> None:
    try:
        function(*arguments)
    except Exception:
        logging.getLogger(__name__).warning("an event could not be written", exc_info=True)


def scalars(row: dict) -> dict[str, float | None]:
    """`tag -> value` of one row: losses per cell and gender, lambda, gaps, objectives, speed."""
    found = {
        "loss/train": row["train_loss"],
        "lambda": row["lambda"],
        "speed/utterances_per_second": row["utterances_per_second"],
        "memory/peak_mb": row["peak_memory_mb"],
    }
    found |= {f"loss/{group}": value for group, value in row["losses"].items()}
    dev = row["dev"]
    for name in ("acc", "w_f1", "max_gap", "worst_group_w_f1", "max_loss_gap"):
        found[f"dev/{name}"] = dev[name]
        found[f"selected/{name}"] = row["selected"].get(name)
    for cell, gaps in dev["gaps"].items():
        found |= {f"gap/{cell}/{name}": gaps[name] for name in ("tpr", "fpr", "w_f1", "acc", "avg")}
    return found
