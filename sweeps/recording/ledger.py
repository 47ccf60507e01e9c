"""Writes what becomes of each trial into the records, the journal and the TensorBoard events."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from ermgap.config import Config
from ermgap.records import COMPLETE, DegenerateRule, Records, StorageError, Trial
from sweeps.recording.events import Events
from sweeps.search import order, space
from sweeps.search.branches import Trunks
from sweeps.search.journal import Journal
from sweeps.search.stopping import Rungs, curve, until

# The rows of a bucket are seconds behind: until they are there, a lost driver needs the checkpoint.
FORGET_S = 30.0


@dataclass
class OpenTrial:
    """A trial between its offer and its outcome."""

    trial_id: str
    hyperparameters: dict
    attempt: int = 0  # how often it was handed out
    epoch: int = 0  # the last committed one
    slot: str | None = None  # the worker group that trains it
    selected: dict = field(default_factory=dict)
    curve: list = field(default_factory=list)  # stopping.curve of its rows
    trouble: str | None = None  # what the worker group said before it died
    config: Config | None = None
    branch_from: dict | None = None  # the `trial` and the `epoch` that it began from
    keep: int = 0  # the last epoch whose checkpoint others may begin from

    def handed_to(self, slot: str) -> dict:
        """What the slot needs to train it; another attempt has begun."""
        self.slot, self.attempt, self.trouble = slot, self.attempt + 1, None
        names = ("trial_id", "attempt", "epoch", "hyperparameters", "branch_from", "keep")
        return {name: getattr(self, name) for name in names} | {"config": self.config.to_dict()}


class Ledger:
    """Commits the rows of one sweep, its only writer, and removes checkpoints of ended trials.

    Args:
        records: the sweep folder.
        config: of the sweep.
        lag: see `order.lag_of`.
    """

    def __init__(self, records: Records, config: Config, *, lag: int | None = None) -> None:
        self.records, self.config, self.lag = records, config, lag
        trials = records.trials()  # once: parsing all rows takes seconds
        # Ended trials whose checkpoints are still stored, and since when; also those of a session
        # that was killed before it removed them.
        self.to_forget = dict.fromkeys(_with_checkpoints(records, trials), time.monotonic())
        self.trunks = Trunks(config)
        self.remaining = config.sweep.trials - sum(trial.ended for trial in trials)
        self._find_trunks(trials)
        self.remover = ThreadPoolExecutor(1)
        self.events = Events(records, trials)
        self.journal = Journal(records, config, trials=trials)
        self.committed = {trial.trial_id: self._reopened(trial) for trial in trials}
        self.rungs = Rungs(config, trials, lag=lag)
        # The baselines run to their end: everything is compared with them.
        self.never_stopped = set(map(order.trial_id, range(len(space.named_points(config)))))
        self.rule = records.rule(trials) or DegenerateRule(-math.inf, config.sweep.floor)

    def open(self, trial_id: str, hyperparameters: dict) -> OpenTrial:
        """The state of a trial that is offered; a new one gets its first row."""
        trial = self.committed.get(trial_id)
        if trial is None:
            trial = OpenTrial(trial_id, hyperparameters)
            self._append(self._row(trial, "running", None))
        self.journal.began(trial_id, hyperparameters)
        return replace(trial, hyperparameters=hyperparameters)

    def epoch(self, trial: OpenTrial, row: dict) -> str:
        """Commit the row of an epoch; returns the status that the trial has with it."""
        status, reason = (self._status(row), None) if row["last"] else ("running", None)
        if status == "running" and trial.trial_id not in self.never_stopped:
            reason = self.rungs.beaten(trial.trial_id, row)
            status = "stopped" if reason else status
        row = {key: value for key, value in row.items() if key != "last"}
        row |= {"status": status, "reason": reason, "slot": trial.slot}
        self._append(row)
        self.rungs.note(trial.trial_id, row)
        self.trunks.note(trial.trial_id, row["epoch"])
        trial.epoch, trial.selected = row["epoch"], row["selected"]
        trial.curve = [*trial.curve, *curve([row], self.config)]
        self.events.epoch(row)
        return status

    def failed(self, trial: OpenTrial, reason: str) -> bool:
        """Commit that a trial cannot go on; returns True."""
        self._append(self._row(trial, "failed", reason) | {"epoch": trial.epoch + 1})
        return True

    def ended(self, trial: OpenTrial, status: str) -> None:
        """Update the rule, the journal and the events after the last row of a trial."""
        floor = self.rule.floor()
        self.rule.note(trial.trial_id, status, trial.hyperparameters, trial.selected)
        if status in COMPLETE:
            status = self.rule.status(trial.selected)
        self.journal.ended(trial.trial_id, trial.hyperparameters, status, trial.selected)
        if self.rule.floor() != floor:
            self.journal.judge(self.rule)
        self.remaining -= 1
        if trial.trial_id not in self.trunks.stored:
            self.to_forget[trial.trial_id] = time.monotonic()
        self._forget(older=FORGET_S if self.records.in_bucket else 0.0)
        self.events.ended(trial.hyperparameters, trial.trial_id, trial.selected)

    def close(self) -> None:
        """Write the last events and remove the last checkpoints; returns when both are done."""
        self.events.close()
        if self.remaining <= 0:
            self.to_forget |= dict.fromkeys(self.trunks.stored, 0.0)
        self._forget(older=0.0)
        self.remover.shutdown()

    def _append(self, row: dict) -> None:
        self.records.append(row)
        self.events.live.add(row)

    def _forget(self, *, older: float) -> None:
        """Remove the checkpoints of trials that ended `older` seconds ago or earlier."""
        end = time.monotonic() - older
        for trial_id in [name for name, ended in self.to_forget.items() if ended <= end]:
            del self.to_forget[trial_id]
            if self.records.in_bucket:  # slow: a request for each checkpoint
                self.remover.submit(self.records.forget_checkpoints, trial_id)
            else:
                self.records.forget_checkpoints(trial_id)

    def begin(self, trial: OpenTrial) -> None:
        """Before a trial is handed out: the trunk that it begins from, and what it is to keep."""
        trial.keep = self.trunks.keep(trial.trial_id, trial.config)
        if trial.epoch:
            return
        trial.branch_from, trial.curve = self.trunks.find(trial.config), []
        if trial.branch_from and self.config.rungs:
            shared = [
                row
                for row in self.records.rows()
                if row["trial_id"] == trial.branch_from["trial"]
                and 0 < row["epoch"] <= trial.branch_from["epoch"]
            ]
            trial.curve = curve(shared, self.config)

    def back(self, trial: OpenTrial) -> None:
        """A trial's checkpoint is lost: it goes on from the one before, in the end from its start.

        A branch has none of its own before its first epoch: it begins again from its trunk, and
        from its start where the trunk's is the one that is lost.
        """
        branch = trial.branch_from
        if branch and not trial.epoch:
            self.trunks.lost(branch["trial"])
        first = branch["epoch"] + 1 if branch else 1
        trial.epoch = trial.epoch - 1 if trial.epoch > first else 0
        trial.curve = until(trial.epoch, trial.curve, self.config)

    def _find_trunks(self, trials: Iterable[Trial]) -> None:
        """Trials of an earlier session that others may begin from, if the sweep is to go on."""
        if self.remaining <= 0:
            return
        for trial in trials:
            loss = trial.hyperparameters.get("loss", self.config.objective.loss)
            if loss == "erm" and trial.epoch and trial.status != "failed":
                self.trunks.keep(trial.trial_id, space.apply(trial.hyperparameters, self.config))
                self.trunks.note(trial.trial_id, trial.epoch)
        for trial_id in self.trunks.stored:
            self.to_forget.pop(trial_id, None)

    def _reopened(self, trial: Trial) -> OpenTrial:
        """The state of a trial of an earlier session, from its rows."""
        return OpenTrial(
            trial.trial_id,
            trial.hyperparameters,
            attempt=trial.attempt - 1 if trial.epoch else 0,  # a session's end is not its fault
            epoch=trial.epoch,
            selected=trial.selected,
            curve=curve(trial.rows, self.config),
            branch_from=trial.branch_from,
        )

    def _status(self, row: dict) -> str:
        """The status of a trial that ends with this row, by the trials that it may know of."""
        trial_id, selected = row["trial_id"], row["selected"]
        rule = replace(self.rule, erm=dict(self.rule.erm))  # the row is yet to be committed
        rule.note(trial_id, "finished", row["config"], selected)
        return rule.status(selected, lambda other: order.knows(trial_id, other, self.lag))

    def _row(self, trial: OpenTrial, status: str, reason: str | None) -> dict:
        return {
            "trial_id": trial.trial_id,
            "attempt": trial.attempt,
            "epoch": trial.epoch,
            "status": status,
            "reason": reason,
            "config": trial.hyperparameters,
            "selected": trial.selected,
            "time": time.time(),
        }


def _with_checkpoints(records: Records, trials: Iterable[Trial]) -> list[str]:
    """Ids of ended trials whose checkpoints are still stored; empty where the storage fails."""
    try:
        stored = records.with_checkpoints()
    except StorageError as problem:
        logging.getLogger(__name__).warning("%s", problem)
        return []
    return [trial.trial_id for trial in trials if trial.ended and trial.trial_id in stored]
