"""TensorBoard events of a sweep: a run per trial, and `sweep` for the hypervolume and the front.

Written by the broker alone. After a resume the events go on where the records end: steps are our
own epochs. Whatever is slow to import is imported by the thread that writes: every Tune trial and
every worker imports the broker's module.
"""

from __future__ import annotations

import importlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from analysis.front import front
from ermgap.records import Records, Trial
from sweeps.recording.seen import Seen

if TYPE_CHECKING:
    from sweeps.recording.eventfile import EventFile

SHARE = 0.1  # of the time at most goes into pictures, which hold the GIL
BACKLOG = 1000  # rows that may wait for the pen; then the broker waits for it


class Events:
    """Writes `DIR/tb` from a thread of its own: drawing a front takes a second, for which no slot
    shall wait. A failure to write or draw is logged and never stops a sweep.

    Args:
        records: the sweep folder.
        trials: those of its rows so far.

    Attributes:
        seen: the sweep as the pictures show it; whoever commits a row notes it there.
    """

    def __init__(self, records: Records, trials: Sequence[Trial] = ()) -> None:
        self.records, self.seen = records, Seen(records, trials)
        self.ends = sum(trial.ended for trial in trials)
        self.folder = Path(records.directory) / "tb"
        self.files: dict[str, EventFile] = {}  # of trials that run, and of the sweep
        self.due: dict[str, float] = {}  # trials that ended since the last picture, and when
        self.rests = -math.inf  # until when nothing is drawn
        self.pen = ThreadPoolExecutor(1)
        self.room = threading.BoundedSemaphore(BACKLOG)

    def epoch(self, row: dict) -> None:
        """Scalars of one committed epoch."""
        self._submit(self._epoch, row)

    def ended(self, hyperparameters: dict, trial_id: str, selected: dict) -> None:
        """hparams with the objectives; soon, the sweep's hypervolume and front."""
        self._submit(self._ended, hyperparameters, trial_id, selected)

    def close(self) -> None:
        """Wait until everything is written."""
        self.pen.submit(_logged, self._draw).result()

    def _submit(self, write: Callable, *arguments) -> None:
        self.room.acquire()
        self.pen.submit(self._written, write, *arguments)

    def _written(self, write: Callable, *arguments) -> None:
        try:
            _logged(write, *arguments)
            if time.monotonic() >= self.rests:
                _logged(self._draw)
        finally:
            self.room.release()

    def _epoch(self, row: dict) -> None:
        found = {
            name: value
            for name, value in scalars(row).items()
            if value is not None and math.isfinite(value)
        }
        self._file(row["trial_id"]).add(_eventfile().scalars(found), step=row["epoch"])

    def _ended(self, hyperparameters: dict, trial_id: str, selected: dict) -> None:
        objectives = {
            f"objective/{name}": float(selected[name])
            for name in self.records.sweep["objectives"]
            if selected.get(name) is not None
        }
        self.files.pop(trial_id, None)
        self.due[trial_id] = time.time()
        if objectives:
            shown = _eventfile().hparams(hyperparameters, objectives)
            file = _eventfile().EventFile(self.folder / trial_id / "hparams")
            file.add(*shown, _eventfile().scalars(objectives))

    def _draw(self) -> None:
        """The hypervolume after each end since the last picture, and one picture for all."""
        if not self.due:
            return
        from analysis.figures import figures

        due, self.due, start = self.due, {}, time.monotonic()
        info, sweep = front.info(self.seen), self._file("sweep")
        values = {
            point.trial_id: [point.values[name] for name in info.objectives]
            for point in info.points
            if point.eligible
        }
        seen = [value for trial_id, value in values.items() if trial_id not in due]
        for trial_id, when in due.items():
            seen += [values[trial_id]] if trial_id in values else []
            volume = front.hypervolume(seen, reference=info.reference, directions=info.directions)
            self.ends += 1
            if math.isfinite(volume):
                told = _eventfile().scalars({"sweep/hypervolume": volume})
                sweep.add(told, step=self.ends, when=when)
        image = figures.front_array(info)
        sweep.add(_eventfile().image("sweep/front", image), step=self.ends)
        took = time.monotonic() - start
        self.rests = time.monotonic() + took / SHARE - took

    def _file(self, run: str) -> EventFile:
        return self.files.setdefault(run, _eventfile().EventFile(self.folder / run))


def _eventfile() -> ModuleType:
    """0.4 s to import."""
    return importlib.import_module("sweeps.recording.eventfile")


def _logged(function: Callable, *arguments) -> None:
    try:
        function(*arguments)
    except Exception:
        logging.getLogger(__name__).warning("an event could not be written", exc_info=True)


def scalars(row: dict) -> dict[str, float | None]:
    """`tag -> value` of one row: losses per cell and gender, lambda, gaps, objectives, speed."""
    found = {
        "loss/train": row["train_loss"],
        "lambda": row.get("lambda_mean", row["lambda"]),
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
