"""The objective of a run: a loss over groups, and the schedule of its fairness weight.

    objective = Objective(config.objective, cells=[("en", "speech"), ("de", "speech")],
                          counts=utterances.group_counts())
    sums = group_sums(losses, cell, side, cells=2, sides=2)   # all-reduce these over workers
    value, gradient = objective(sums, progress=step / steps)  # J and dJ/d(sums)
    weights = utterance_weights(gradient, losses, cell, side)
    (weights * losses).sum().backward()                       # then add the workers' gradients up

group_sums.py has the algebra. losses.py (J), gap_estimators.py (the penalty of `minmaxgap`) and
schedules.py (the fairness weight over training) hold a registry each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ermgap import config
from ermgap.objective.gap_estimators import ESTIMATORS, Estimator
from ermgap.objective.group_sums import (
    cell_names,
    group_means,
    group_sums,
    utterance_weights,
)
from ermgap.objective.losses import LOSSES, Loss, value_and_gradient
from ermgap.objective.schedules import SCHEDULES, Schedule

__all__ = [
    "ESTIMATORS",
    "LOSSES",
    "SCHEDULES",
    "Estimator",
    "Loss",
    "Objective",
    "Schedule",
    "cell_names",
    "check_registered",
    "group_means",
    "group_sums",
    "utterance_weights",
]


def check_registered(settings: config.Objective) -> None:
    """Raise UserError for a loss, a schedule or an estimator that is not registered."""
    LOSSES.find(settings.loss)
    SCHEDULES.find(settings.schedule)
    ESTIMATORS.find(settings.estimator)


class Objective:
    """A loss and the schedule of its fairness weight, with their state.

    Args:
        settings: the `objective` section of the configuration.
        cells: (language, modality) of each cell, in the order of cell indices.
        counts: training utterances per cell and side, [C, S].
        unknown: whether training has utterances of unknown side; theirs is a column of the sums.

    Attributes:
        columns: of the sums, S or S + 1.

    Raises:
        UserError: the loss, its estimator or the schedule is not registered.
    """

    def __init__(
        self,
        settings: config.Objective,
        *,
        cells: Sequence[tuple[str, str]],
        counts,
        unknown: bool = False,
    ) -> None:
        self.settings = settings
        self.cells = list(cells)
        counts = torch.as_tensor(counts, dtype=torch.float64)
        self.columns = counts.shape[1] + unknown
        self.loss: Loss = LOSSES.find(settings.loss)(settings, counts)
        self.schedule: Schedule = SCHEDULES.find(settings.schedule)(settings)

    def __call__(self, sums: Tensor, *, progress: float) -> tuple[Tensor, Tensor]:
        """J (float64 scalar) and dJ/d(S, Q, N), of a global batch's sums [3, C, columns] float64.

        Call it once a step: it updates what the loss keeps from step to step.
        """
        self.loss.observe(sums)
        return value_and_gradient(self.loss, sums, self.fairness_weight(progress))

    def fairness_weight(self, progress: float) -> float:
        """The fairness weight at this share of the full budget; 0 for a loss without one."""
        return float(self.schedule.value(progress)) if self.loss.has_fairness_weight else 0.0

    def evaluated(self, metrics: Mapping) -> None:
        """Give the schedule the dev metrics (`ermgap.metrics.evaluate`) of an evaluation."""
        name = {"max_gap": "max_gap", "loss": "max_loss_gap"}[self.settings.gap]
        self.schedule.evaluated(float(metrics[name]))

    def state_dict(self) -> dict:
        """State of the loss and, under the key `weight`, of the schedule, for the checkpoint."""
        return {"loss": self.loss.state_dict(), "weight": self.schedule.state_dict()}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        self.loss.load_state_dict(state["loss"])
        self.schedule.load_state_dict(state["weight"])
