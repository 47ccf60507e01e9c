"""Objectives J(S, Q, N; lambda): one class each, one registry line each.

A loss is made from the `objective` section of the configuration and the number of cells, and is
called with the global batch's sums (see groups.py) and the present fairness weight. It returns a
float64 scalar that autograd can differentiate with respect to the sums. To add one:

    class Mine(Loss):
        def __call__(self, sums, weight): ...
    LOSSES["mine"] = Mine
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ermgap import config
from ermgap.registry import Registry


class Loss(ABC):
    """Base class: holds the configuration; override `__call__`, and the state if there is any."""

    #: Whether the fairness weight has any influence; ERM's is recorded as 0.
    weighted = True

    def __init__(self, settings: config.Objective, cells: int) -> None:
        self.settings = settings
        self.cells = cells

    @abstractmethod
    def __call__(self, sums: Tensor, weight: float) -> Tensor:
        """J as a float64 scalar from sums [3, C, 2] float64 and the fairness weight lambda."""

    def state_dict(self) -> dict:
        """What a resumed run needs; plain numbers and tensors only."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Take back what `state_dict` gave."""


def mean_loss(sums: Tensor) -> Tensor:
    """The mean over all utterances of the global batch: sum S / sum N."""
    return sums[0].sum() / sums[2].sum()


class ERM(Loss):
    """Empirical risk minimisation: the mean loss over the utterances of the global batch."""

    weighted = False

    def __call__(self, sums: Tensor, weight: float) -> Tensor:
        return mean_loss(sums)


class MinMaxGap(Loss):
    """ERM + lambda * (max over cells |mean female loss - mean male loss|)^p (arXiv 2603.21050).

    A cell in which the batch has no utterance of one gender makes no penalty: its gap is unknown,
    not |L - 0|. Where two cells tie, the gradient is that of the first.
    """

    def __call__(self, sums: Tensor, weight: float) -> Tensor:
        total, _, count = sums
        if weight == 0:
            return mean_loss(sums)
        means = total / count.clamp(min=1)
        both = (count > 0).all(dim=1)
        # -1 for an unknown gap: if all are, the clamp leaves 0, and no gradient. Nothing here asks
        # the device for a number, which would make the host wait for it in every step.
        gaps = torch.where(both, (means[:, 0] - means[:, 1]).abs(), -1.0)
        worst = gaps.gather(0, gaps.argmax(0, keepdim=True)).clamp(min=0)
        return mean_loss(sums) + weight * worst.squeeze(0) ** self.settings.p


LOSSES = Registry("loss")
LOSSES["erm"] = ERM
LOSSES["minmaxgap"] = MinMaxGap


def value_and_gradient(loss: Loss, sums: Tensor, weight: float) -> tuple[float, Tensor]:
    """J and dJ/d(S, Q, N), float64 [3, C, 2], at the global batch's sums."""
    leaf = sums.detach().clone().requires_grad_(True)
    value = loss(leaf, weight)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient
