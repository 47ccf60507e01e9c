"""A copy of the sweep as an Optuna study, which `optuna-dashboard DIR/optuna.journal` opens live.

The records are the truth; the journal is written from them, and never read by a search. Each
session begins by writing it anew (an append-only file: the study is deleted in it and made again),
so that what a killed session left half written is gone. So does a floor that rises, since Optuna
lets no trial that has ended be changed.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import TrialState, create_trial

from ermgap.config import Config
from ermgap.records import COMPLETE, DegenerateRule, Records, Trial, file_names
from sweeps.search import space
from sweeps.search.outcome import Outcome, directions, trial_key

UNFINISHED = {"waiting": TrialState.WAITING, "running": TrialState.RUNNING}


class Journal:
    """The only writer of a sweep's journal.

    Where the journal cannot be written, a warning says so once, and the sweep goes on without.

    Args:
        records: the sweep folder. config: of the sweep.
        trials: those of the folder, where they have been read already.
    """

    def __init__(
        self, records: Records, config: Config, trials: Sequence[Trial] | None = None
    ) -> None:
        self.config, self.broken = config, False
        self.path = records.directory / file_names.STUDY
        self.name = records.directory.absolute().name
        self.known: dict[str, int] = {}  # number in the study
        trials = records.trials() if trials is None else trials
        self.trials = {
            t.trial_id: (t.hyperparameters, t.status if t.ended else "waiting", t.selected)
            for t in trials
        }
        self.times = {t.trial_id: (t.rows[0].get("time"), t.rows[-1].get("time")) for t in trials}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._safely(self._write)

    def began(self, trial_id: str, hyperparameters: Mapping) -> None:
        """A configuration is offered."""
        self.trials[trial_id] = hyperparameters, "running", {}
        self.times[trial_id] = self.times.get(trial_id, (time.time(), None))[0], None
        self._safely(self._enter, trial_id)

    def ended(
        self, trial_id: str, hyperparameters: Mapping, status: str, selected: Mapping
    ) -> None:
        """A configuration has ended; `selected` as in the records."""
        self.trials[trial_id] = hyperparameters, status, selected
        self.times[trial_id] = self.times.get(trial_id, (None,))[0], time.time()
        self._safely(self._enter, trial_id)

    def judge(self, rule: DegenerateRule) -> None:
        """The floor has risen: write the study anew if a trial has become degenerate."""
        before = dict(self.trials)
        for trial_id, (hyperparameters, status, selected) in before.items():
            if status in COMPLETE:
                self.trials[trial_id] = hyperparameters, rule.status(selected), selected
        if self.trials != before:
            self._safely(self._write)

    def _safely(self, write, *arguments) -> None:
        if self.broken:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                write(*arguments)
        except Exception as problem:
            self.broken = True
            logging.getLogger(__name__).warning(
                "%s is not written any further: %s", self.path, problem
            )

    def _write(self) -> None:
        self.known = {}
        _drop_half_line(self.path)
        storage = JournalStorage(_Backend(str(self.path), lock_obj=_NoLock("")))
        if self.name in [study.study_name for study in storage.get_all_studies()]:
            optuna.delete_study(study_name=self.name, storage=storage)
        self.study = optuna.create_study(
            study_name=self.name,
            storage=storage,
            directions=directions(self.config),
            sampler=optuna.samplers.RandomSampler(),
        )
        self.study.set_metric_names(list(self.config.sweep.objectives))
        for trial_id in self.trials:
            self._enter(trial_id)

    def _enter(self, trial_id: str) -> None:
        """Add a trial to the study, or enter what has become of it."""
        hyperparameters, status, selected = self.trials[trial_id]
        unfinished = status in UNFINISHED
        outcome = None if unfinished else Outcome.of(status, selected, self.config)
        if trial_id in self.known and unfinished:
            key = trial_key(self.study, self.known[trial_id])
            return self.study._storage.set_trial_state_values(key, state=UNFINISHED[status])
        if trial_id in self.known:
            return outcome.enter(self.study, self.known[trial_id])
        ranges = space.distributions(self.config)
        around = {name: _around(ranges.get(name), v) for name, v in hyperparameters.items()}
        distributions = {name: d for name, d in around.items() if d is not None}
        trial = create_trial(
            params={name: hyperparameters[name] for name in distributions},
            distributions=distributions,
            user_attrs={"trial_id": trial_id, "configuration": dict(hyperparameters)},
            **({"state": UNFINISHED[status]} if unfinished else vars(outcome)),
        )
        begun, ended = self.times.get(trial_id, (None, None))
        if begun and trial.datetime_start:
            trial.datetime_start = datetime.fromtimestamp(begun)
        if ended and trial.datetime_complete:
            trial.datetime_complete = datetime.fromtimestamp(ended)
        self.study.add_trial(trial)
        self.known[trial_id] = len(self.known)


def write(records: Records, config: Config) -> None:
    """Write the journal of a sweep that does not run, from its records."""
    Journal(records, config)


def _around(distribution: BaseDistribution | None, value) -> BaseDistribution | None:
    """The distribution, widened to the value of a named point; None where that is impossible."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution if value in distribution.choices else None
    if not isinstance(distribution, FloatDistribution) or (distribution.log and value <= 0):
        return None
    return FloatDistribution(
        min(distribution.low, value), max(distribution.high, value), log=distribution.log
    )


def _drop_half_line(path: Path) -> None:
    """Cut off the half-written line that a killed session may have left."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


class _Backend(JournalFileBackend):
    """Without an fsync: what a crash of the machine takes of it, the next session writes anew."""

    def append_logs(self, logs: list[dict]) -> None:
        with open(self._file_path, "ab") as file:
            lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
            file.write("".join(lines).encode())


class _NoLock(JournalFileOpenLock):
    """The sweep folder is locked for its driver: a lock file here would outlive a kill."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
