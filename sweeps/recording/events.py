"""Writes a sweep's TensorBoard events: a run per trial, and `sweep` with hypervolume and front.

Only the broker writes them. After a resume the events go on where the records end, since the steps
are our own epochs. Slow imports are left to the thread that writes: every Tune trial and every
worker imports the broker's module.
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
from ermgap.config import GAP_TITLES, METRICS
from ermgap.records import Records, Trial
from sweeps.recording.live_records import LiveRecords

if TYPE_CHECKING:
    from sweeps.recording.eventfile import EventFile

DRAWING_SHARE = 0.1  # of the time at most goes into pictures, which hold the GIL
QUEUE_SIZE = 1000  # events that may wait for the writing thread; then the broker waits for it


class Events:
    """Writes `DIR/tb` in a thread of its own: drawing a front takes a second, for which no worker
    group shall wait. A failure to write or draw is logged and never stops a sweep.

    Args:
        records: the sweep folder.
        trials: those of its rows so far.

    Attributes:
        live: the sweep as the pictures show it; whoever commits a row adds it there.
    """

    def __init__(self, records: Records, trials: Sequence[Trial] = ()) -> None:
        self.records, self.live = records, LiveRecords(records, trials)
        self.n_ended = sum(trial.ended for trial in trials)
        self.folder = Path(records.directory) / "tb"
        self.files: dict[str, EventFile] = {}  # of trials that run, and of the sweep
        self.not_drawn: dict[str, float] = {}  # trials that ended since the last picture, and when
        self.next_drawing = -math.inf  # on the monotonic clock
        self.experiment_written = False
        self.writer = ThreadPoolExecutor(1)
        self.queue = threading.BoundedSemaphore(QUEUE_SIZE)

    def epoch(self, row: dict) -> None:
        """Write the scalars of one committed epoch."""
        self._submit(self._epoch, row)

    def ended(self, hyperparameters: dict, trial_id: str, selected: dict) -> None:
        """Write a trial's hyperparameters with its objectives; soon, hypervolume and front."""
        self._submit(self._ended, hyperparameters, trial_id, selected)

    def close(self) -> None:
        """Wait until everything is written."""
        self.writer.submit(_logged, self._draw).result()

    def _submit(self, write: Callable, *arguments) -> None:
        self.queue.acquire()
        self.writer.submit(self._write, write, *arguments)

    def _write(self, write: Callable, *arguments) -> None:
        try:
            _logged(write, *arguments)
            if time.monotonic() >= self.next_drawing:
                _logged(self._draw)
        finally:
            self.queue.release()

    def _epoch(self, row: dict) -> None:
        values = {k: v for k, v in scalars(row).items() if v is not None and math.isfinite(v)}
        self._file(row["trial_id"]).add(_eventfile().scalars(values), step=row["epoch"])

    def _ended(self, hyperparameters: dict, trial_id: str, selected: dict) -> None:
        objectives = {
            f"objective/{name}": float(selected[name])
            for name in self.records.sweep["objectives"]
            if selected.get(name) is not None
        }
        file = self._file(trial_id)
        del self.files[trial_id]
        self.not_drawn[trial_id] = time.time()
        if objectives:
            self._describe_hyperparameters(hyperparameters)
            file.add(*_eventfile().hparams(hyperparameters))
            file.add(_eventfile().scalars(objectives), step=selected.get("epoch"))

    def _describe_hyperparameters(self, of_ended: dict) -> None:
        """Tell TensorBoard once what all trials may have: it reads one description of a sweep."""
        if self.experiment_written:
            return
        values: dict[str, list] = {
            name: interval.get("choices") or [interval["low"]]
            for name, interval in (self.records.sweep.get("space") or {}).items()
        }
        for hyperparameters in [*(trial.hyperparameters for trial in self.live.trials()), of_ended]:
            for name, value in hyperparameters.items():
                values[name] = [*values.get(name, ()), value]
        metrics = [f"objective/{name}" for name in self.records.sweep["objectives"]]
        self._file("sweep").add(_eventfile().experiment(values, metrics))
        self.experiment_written = True

    def _draw(self) -> None:
        """The hypervolume after each end since the last picture, and one picture for all."""
        if not self.not_drawn:
            return
        from analysis.figures import figures

        new, self.not_drawn, start = self.not_drawn, {}, time.monotonic()
        info, sweep = front.info(self.live), self._file("sweep")
        values = {
            point.trial_id: [point.values[name] for name in info.objectives]
            for point in info.points
            if point.eligible
        }
        reached = [value for trial_id, value in values.items() if trial_id not in new]
        for trial_id, when in new.items():
            reached += [values[trial_id]] if trial_id in values else []
            volume = front.hypervolume(
                reached, reference=info.reference, directions=info.directions
            )
            self.n_ended += 1
            if math.isfinite(volume):
                summary = _eventfile().scalars({"sweep/hypervolume": volume})
                sweep.add(summary, step=self.n_ended, when=when)
        image = figures.front_array(info)
        sweep.add(_eventfile().image("sweep/front", image), step=self.n_ended)
        end = time.monotonic()
        self.next_drawing = end + (end - start) * (1 / DRAWING_SHARE - 1)

    def _file(self, run: str) -> EventFile:
        if run not in self.files:
            self.files[run] = _eventfile().EventFile(self.folder / run)
        return self.files[run]


def _eventfile() -> ModuleType:
    """0.4 s to import."""
    return importlib.import_module("sweeps.recording.eventfile")


def _logged(function: Callable, *arguments) -> None:
    try:
        function(*arguments)
    except Exception:
        logging.getLogger(__name__).warning("an event could not be written", exc_info=True)


def scalars(row: dict) -> dict[str, float | None]:
    """`tag -> value` of one row: losses per cell and side, lambda, gaps, objectives, speed."""
    values = {
        "loss/train": row["train_loss"],
        "lambda": row.get("lambda_mean", row["lambda"]),
        "raised_share": row.get("raised_share"),
        "speed/utterances_per_second": row["utterances_per_second"],
        "memory/peak_mb": row["peak_memory_mb"],
    }
    values |= {f"loss/{group}": value for group, value in row["losses"].items()}
    dev = row["dev"]
    for name in METRICS:
        values[f"dev/{name}"] = dev[name]
        values[f"selected/{name}"] = row["selected"].get(name)
    for cell, gaps in dev["gaps"].items():
        values |= {f"gap/{cell}/{name}": gaps[name] for name in GAP_TITLES}
    return values
