"""The end of a trial in Optuna's terms; the search's study and the journal enter it alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from ermgap import metrics
from ermgap.config import METRICS, Config
from ermgap.records import COMPLETE


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: COMPLETE, PRUNED (stopped early) or FAIL, which it also is without finite objectives.
        values: of the objectives; None unless COMPLETE.
        constraints: by name, positive where one is violated; none unless COMPLETE.
    """

    state: TrialState
    values: list[float] | None
    constraints: dict[str, float]

    @classmethod
    def of(cls, status: str, scores: Mapping, config: Config) -> Outcome:
        """The outcome of an ended trial with these dev scores."""
        values = [scores.get(name) for name in config.sweep.objectives]
        sound = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
        if status not in COMPLETE or not sound:
            return cls(TrialState.PRUNED if status == "stopped" else TrialState.FAIL, None, {})
        constraints = degenerate(status) | {
            name: metrics.violation(name, scores.get(name), limit)
            for name, limit in config.sweep.constraints.items()
        }
        return cls(TrialState.COMPLETE, [float(value) for value in values], constraints)

    def enter(self, study: optuna.Study, number: int, attributes: Mapping = {}) -> None:
        """End the study's running trial of this number, with user attributes."""
        trial = optuna.Trial(study, trial_key(study, number))
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        for name, value in self.constraints.items():
            trial.set_constraint(name, value)
        study.tell(number, self.values, state=self.state)


def degenerate(status: str) -> dict[str, float]:
    """The constraint that a trial is not degenerate."""
    return {"degenerate": 1.0 if status == "degenerate" else -1.0}


def directions(config: Config) -> list[str]:
    """Optuna's direction of each objective."""
    return [f"{METRICS[name].direction}imize" for name in config.sweep.objectives]


def trial_key(study: optuna.Study, number: int) -> int:
    """The key in the study's storage of the trial with a number."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
