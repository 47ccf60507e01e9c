"""Estimator `soft`: a soft maximum of the gaps over cells, a plugin for figures_method_tried.py.

With A_c the running gap of cell c (as for `ema`) and T the temperature in nats,

    T log sum_c exp(A_c / T)        in value,
    sum_c q_c d a_c                 in gradient, q = softmax(A_c / T), a_c the gap of the batch,

so that the push is spread over cells with nearly equal gaps instead of going to one. The penalty is
of degree 1 (p: 1). T is the part after the colon of the estimator's name: `soft:0.2`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ermgap.objective.gap_estimators import ESTIMATORS, Running

TEMPERATURES = (0.05, 0.2, 1.0)


class Soft(Running):
    """The soft maximum of all cells' gaps, with the sides of the configuration."""

    temperature: float

    def __call__(self, sums: Tensor) -> Tensor:
        present = sums[2] >= 1
        running, pairs, _ = self.running_gaps(present)
        defined = present.sum(1) >= 2
        if not defined.any():
            return sums.sum() * 0.0
        scaled = torch.where(defined, running / self.temperature, -torch.inf)
        batch = torch.where(defined, self.gaps(sums, pairs), 0.0)
        push = (scaled.softmax(0) * (batch - batch.detach())).sum()
        return self.temperature * scaled.logsumexp(0) + push


for temperature in TEMPERATURES:
    ESTIMATORS[f"soft:{temperature:g}"] = type("Soft", (Soft,), {"temperature": temperature})
