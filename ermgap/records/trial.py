"""The rows of `trials.jsonl` as they are read, their trials, and which of these are degenerate."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ermgap.config import old_forms
from ermgap.records.files import json_lines

COMPLETE = ("finished", "degenerate")  # the statuses of a trial that ran to its end
ENDED = (*COMPLETE, "stopped", "failed")
NEEDED = {"trial_id": str, "attempt": int, "epoch": int, "status": str, "config": dict}
FLOOR_SHARE = 0.5  # of ERM's best W-F1: the default floor
NAME = re.compile(r"\w[\w .-]*")  # of a trial: names of files contain it, so it must be no path


@dataclass(frozen=True)
class Trial:
    """One trial, from its rows; `selected` holds the dev scores of the selected epoch.

    `status` is that of the last row until `judge_trials` gives it the current one. A
    trial that began as a branch has `branch_from`, the `trial` and `epoch` that it goes on from;
    `Records.trials` puts that trial's rows up to that epoch, with their own id, before its own.
    """

    trial_id: str
    status: str
    reason: str | None
    hyperparameters: dict
    epoch: int
    attempt: int
    selected: dict
    rows: list[dict] = field(repr=False)
    branch_from: dict | None = None

    @classmethod
    def of(cls, rows: list[dict]) -> Trial:
        """The trial of one or more rows in order; all but `rows` is from the last one."""
        last = rows[-1]
        return cls(
            trial_id=last["trial_id"],
            status=last["status"],
            reason=last.get("reason"),
            hyperparameters=last["config"],
            epoch=last["epoch"],
            attempt=last["attempt"],
            selected=last.get("selected") or {},
            rows=rows,
            branch_from=next(filter(None, (row.get("branch_from") for row in rows[::-1])), None),
        )

    @property
    def ended(self) -> bool:
        """Whether the trial has a final status (finished, stopped, failed or degenerate)."""
        return self.status in ENDED


def with_trunk(trial: Trial, rows: Mapping[str, list[dict]]) -> Trial:
    """The trial with the epochs that it shares with its trunk, from the `rows` of all trials."""
    if not trial.branch_from:
        return trial
    trunk, last = trial.branch_from["trial"], trial.branch_from["epoch"]
    shared = [row for row in rows.get(trunk, []) if 0 < row["epoch"] <= last]
    own = [row for row in trial.rows if row["epoch"] > last]
    before = [row for row in trial.rows if row["epoch"] == 0]
    return replace(trial, rows=[*before, *shared, *own])


def parse_rows(content: bytes) -> tuple[list[dict], bool]:
    """The rows in a piece of trials.jsonl, in order, and whether any line was half-written."""
    rows, half_written = [], False
    for row in json_lines(content):
        if _is_row(row):
            row["config"] = old_forms.current_hyperparameters(row["config"])
            rows.append(row)
        else:
            half_written = True
    return rows, half_written


def _is_row(row) -> bool:
    """Whether a JSON value is a row: all NEEDED keys with values of their types."""
    return (
        isinstance(row, dict)
        and all(type(row.get(name)) is kind for name, kind in NEEDED.items())
        and isinstance(row.get("selected") or {}, dict)
        and NAME.fullmatch(row["trial_id"]) is not None
    )


@dataclass
class DegenerateRule:
    """Which trials of a sweep are degenerate: one rule, for everything that compares trials.

    A constant predictor has a gap of 0, so a model that hardly predicts is no part of the
    comparison. A trial that ran to its end is degenerate when its dev accuracy is not above the
    majority rate, or its dev W-F1 is under the floor (`is_degenerate`): `sweep.floor`, or by
    default half of the best dev W-F1 of an ERM trial that ran to its end. The default rises when a
    better ERM trial ends, so a trial that was above it may be under it later. Therefore the status
    in a row only says what was true when the trial ended: `Records.trials`, the front, the journal
    and the searcher judge anew.

    Attributes:
        majority_rate: of the sweep's dev utterances, in [0, 1].
        given: `sweep.floor`, a W-F1 in [0, 1]; None: the floor follows ERM.
        loss: of a trial whose hyperparameters name no loss; None where that is not known.
        erm: dev W-F1 of each complete ERM trial, by trial id.
    """

    majority_rate: float
    given: float | None = None
    loss: str | None = None
    erm: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, sweep: Mapping, trials: Iterable[Trial] = ()) -> DegenerateRule | None:
        """The rule of a sweep.yaml and the trials so far; None where it has no majority rate."""
        config = sweep.get("config")
        searched, objective = _section(config, "sweep"), _section(config, "objective")
        given = sweep.get("floor")
        given = searched.get("floor") if given is None else given
        if not _is_number(sweep.get("majority_rate")):
            return None
        loss = None if searched.get("points") else objective.get("loss")
        rule = cls(sweep["majority_rate"], given if _is_number(given) else None, loss)
        for trial in trials:
            rule.note(trial.trial_id, trial.status, trial.hyperparameters, trial.selected)
        return rule

    def note(self, trial_id: str, status: str, hyperparameters: Mapping, selected: Mapping) -> None:
        """Let a trial that has ended raise the floor, if it is a complete ERM trial."""
        score = _score(selected, "w_f1")
        is_erm = hyperparameters.get("loss", self.loss) == "erm"
        if status in COMPLETE and is_erm and math.isfinite(score):
            self.erm[trial_id] = score

    def floor(self, counts: Callable[[str], bool] = bool) -> float | None:
        """The W-F1 under which a trial is degenerate; None where there is none yet.

        Args:
            counts: whether the ERM trial of this id counts; by default all do.
        """
        if self.given is not None:
            return self.given
        scores = [score for trial_id, score in self.erm.items() if counts(trial_id)]
        return FLOOR_SHARE * max(scores) if scores else None

    def status(self, selected: Mapping, counts: Callable[[str], bool] = bool) -> str:
        """The status of a complete trial with these dev scores: `finished` or `degenerate`."""
        degenerate = is_degenerate(
            acc=_score(selected, "acc"),
            w_f1=_score(selected, "w_f1"),
            majority_rate=self.majority_rate,
            floor=self.floor(counts),
        )
        return "degenerate" if degenerate else "finished"


def judge_trials(trials: Sequence[Trial], rule: DegenerateRule | None) -> list[Trial]:
    """The trials with the status that the rule gives to complete ones; unchanged without a rule."""
    if rule is None:
        return list(trials)
    return [
        replace(trial, status=rule.status(trial.selected)) if trial.status in COMPLETE else trial
        for trial in trials
    ]


def _score(selected: Mapping, name: str) -> float:
    value = selected.get(name)
    return float(value) if _is_number(value) else math.nan


def _section(config: object, name: str) -> Mapping:
    section = config.get(name) if isinstance(config, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_degenerate(*, acc: float, w_f1: float, majority_rate: float, floor: float | None) -> bool:
    """Whether a model predicts too little to be compared; scores and rates are fractions.

    True when accuracy is not above the majority rate, when W-F1 is under `floor` (None: no floor),
    or when either is undefined.
    """
    if not (math.isfinite(acc) and math.isfinite(w_f1)):
        return True
    return acc <= majority_rate + 1e-12 or (floor is not None and w_f1 < floor)
