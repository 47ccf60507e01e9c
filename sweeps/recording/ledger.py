"""The broker's pen: what the records and the TensorBoard events hear of each configuration."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ermgap.config import Config
from ermgap.records import COMPLETE, DegenerateRule, Records, StorageError, Trial
from sweeps.recording.events import Events
from sweeps.search import space
from sweeps.search.gangs import Entry
from sweeps.search.journal import Journal
from sweeps.search.order import knows
from sweeps.search.stopping import Rungs, curve

# The rows of a bucket are seconds behind: until they are there, a lost driver needs the checkpoint.
FORGET_S = 30.0


class Ledger:
    """Writes the rows of one sweep; nobody else does.

    Args:
        records: the sweep folder.
        config: of the sweep.
        lag: see `order.lag_of`.
    """

    def __init__(self, records: Records, config: Config, *, lag: int | None = None) -> None:
        self.records, self.config, self.lag = records, config, lag
        trials = records.trials()  # once: a sweep's rows are parsed in seconds, and not kept
        self.ended_before = sum(trial.ended for trial in trials)
        # Ended trials whose checkpoints are still stored, and since when; also those of a session
        # that was killed before it removed them.
        self.over = dict.fromkeys(_with_checkpoints(records, trials), time.monotonic())
        self.janitor = ThreadPoolExecutor(1)
        self.events = Events(records, trials)
        self.journal = Journal(records, config, trials=trials)
        self.committed = {trial.trial_id: self._entry(trial) for trial in trials}
        self.rungs = Rungs(config, trials, lag=lag)
        # The baselines run to their end: everything is compared with them.
        self.spared = set(map(space.trial_id, range(len(space.named_points(config)))))
        self.rule = records.rule(trials) or DegenerateRule(-math.inf, config.sweep.floor)

    def open(self, trial_id: str, hyperparameters: dict) -> Entry:
        """A configuration that is offered: a new one gets its first row, another goes on."""
        entry = self.committed.get(trial_id)
        if entry is None:
            entry = Entry(trial_id, hyperparameters)
            self._append(self._row(entry, "running", None))
        self.journal.began(trial_id, hyperparameters)
        return replace(entry, hyperparameters=hyperparameters)

    def epoch(self, entry: Entry, row: dict) -> str:
        """Commit an epoch; returns the status that the configuration has with it."""
        status, reason = (self._status(row), None) if row["last"] else ("running", None)
        if status == "running" and entry.trial_id not in self.spared:
            reason = self.rungs.beaten(entry.trial_id, row)
            status = "stopped" if reason else status
        row = {key: value for key, value in row.items() if key != "last"}
        row |= {"status": status, "reason": reason, "slot": entry.slot, "spared": entry.spared}
        self._append(row)
        self.rungs.note(entry.trial_id, row)
        entry.epoch, entry.selected = row["epoch"], row["selected"]
        entry.curve = [*entry.curve, *curve([row], self.config)]
        self.events.epoch(row)
        return status

    def failed(self, entry: Entry, reason: str) -> bool:
        """Commit that a configuration cannot go on; True when it is."""
        self._append(self._row(entry, "failed", reason) | {"epoch": entry.epoch + 1})
        return True

    def ended(self, entry: Entry, status: str) -> None:
        """After the last row of a configuration."""
        floor = self.rule.floor()
        self.rule.note(entry.trial_id, status, entry.hyperparameters, entry.selected)
        if status in COMPLETE:
            status = self.rule.status(entry.selected)
        self.journal.ended(entry.trial_id, entry.hyperparameters, status, entry.selected)
        if self.rule.floor() != floor:
            self.journal.judge(self.rule)
        self.over[entry.trial_id] = time.monotonic()
        self._forget(older=FORGET_S if self.records.in_bucket else 0.0)
        self.events.ended(entry.hyperparameters, entry.trial_id, entry.selected)

    def close(self) -> None:
        """The sweep is over."""
        self.events.close()
        self._forget(older=0.0)
        self.janitor.shutdown()

    def _append(self, row: dict) -> None:
        self.records.append(row)
        self.events.live.add(row)

    def _forget(self, *, older: float) -> None:
        """Remove the checkpoints of trials that ended so many seconds ago."""
        end = time.monotonic() - older
        for trial_id in [name for name, ended in self.over.items() if ended <= end]:
            del self.over[trial_id]
            if self.records.in_bucket:  # it takes a request each, for which nobody shall wait
                self.janitor.submit(self.records.forget_checkpoints, trial_id)
            else:
                self.records.forget_checkpoints(trial_id)

    def _entry(self, trial: Trial) -> Entry:
        """Where a trial stands by its rows."""
        entry = Entry(
            trial.trial_id, trial.hyperparameters, epoch=trial.epoch, selected=trial.selected
        )
        entry.curve = curve(trial.rows, self.config)
        if trial.epoch:  # the session's end was no fault of the configuration
            entry.attempt = trial.attempt - 1
            entry.spared = bool(trial.rows[-1].get("spared"))
        return entry

    def _status(self, row: dict) -> str:
        """What a trial is that ends with this row, by the trials that it may know of."""
        trial_id, selected = row["trial_id"], row["selected"]
        rule = replace(self.rule, erm=dict(self.rule.erm))  # the row is yet to be committed
        rule.note(trial_id, "finished", row["config"], selected)
        return rule.status(selected, lambda other: knows(trial_id, other, self.lag))

    def _row(self, entry: Entry, status: str, reason: str | None) -> dict:
        return {
            "trial_id": entry.trial_id,
            "attempt": entry.attempt,
            "epoch": entry.epoch,
            "status": status,
            "reason": reason,
            "config": entry.hyperparameters,
            "selected": entry.selected,
            "time": time.time(),
        }


def _with_checkpoints(records: Records, trials: Iterable[Trial]) -> list[str]:
    """Ids of ended trials whose checkpoints are still stored; of a storage that refuses, none."""
    try:
        stored = records.with_checkpoints()
    except StorageError as problem:
        logging.getLogger(__name__).warning("%s", problem)
        return []
    return [trial.trial_id for trial in trials if trial.ended and trial.trial_id in stored]
