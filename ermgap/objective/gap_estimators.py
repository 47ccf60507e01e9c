"""Estimators of the worst gap's p-th power, R, from the sums of a batch: one registry line each.

With a_c, b_c the batch's mean female and male loss in cell c, n and s^2 their counts and sample
variances, and A_c, B_c running means (of sums and counts that decay by `ema` each step, this batch
included):

    batch       |a_w - b_w|^p,                                 w = argmax |a_c - b_c|
    ema         |A_w - B_w|^p in value,                        w = argmax |A_c - B_c|
                p |A_w - B_w|^(p-1) sign(A_w - B_w) d(a_w - b_w) in gradient
    unbiased    (a_w - b_w)^2 - s_a^2/n_a - s_b^2/n_b,         w as for ema; p = 2

`batch` is the paper as read (arXiv 2603.21050). Its square is too large by the variance of both
means (with 4 utterances a gender by more than the gap itself), and its maximum picks the noisiest
cell; `unbiased` takes the variance off (after Rychener et al., arXiv 2205.15049), which is exact
for one cell and not for the maximum, hence w from running means; it may be negative and is not
clamped, or the mean would be off again. Its price is a gradient whose noise grows with the losses:
on real speech with 16 utterances a batch, training diverged in three of five folds once lambda was
over 0.3, and was as good as with the others at 0.1 (tests/benchmarks/results/systems.md).

A cell in which the batch lacks a gender (two utterances of one for `unbiased`) makes no penalty:
its gap is unknown, not |L - 0|. Nothing here asks the device for a number, which would make the
host wait for it in every step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ermgap import config
from ermgap.registry import Registry


class Estimator(ABC):
    """R from sums [3, C, 2] float64 (group_sums.py), with whatever it keeps from step to step."""

    def __init__(self, settings: config.Objective) -> None:
        self.settings = settings

    def observe(self, sums: Tensor) -> None:
        """See a step's sums, before R is asked for."""

    @abstractmethod
    def __call__(self, sums: Tensor) -> Tensor:
        """R, a float64 scalar that autograd can differentiate with respect to the sums."""

    def state_dict(self) -> dict:
        """What a resumed run needs; plain numbers and tensors only."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Take back what `state_dict` gave."""


class Batch(Estimator):
    """The gap of this batch alone. Where two cells tie, the gradient is that of the first."""

    def __call__(self, sums: Tensor) -> Tensor:
        gaps = signed_gaps(sums)
        # The clamp leaves 0, and no gradient, where every gap is unknown.
        worst = _worst(gaps.abs(), known(sums, 1))
        return pick(torch.where(known(sums, 1), gaps.abs(), 0.0), worst) ** self.settings.p


class Running(Estimator):
    """Running group means: the sums and counts of past batches, decayed."""

    def __init__(self, settings: config.Objective) -> None:
        super().__init__(settings)
        self.running: Tensor | None = None

    def observe(self, sums: Tensor) -> None:
        """Decay what was, and add this batch."""
        sums = sums.detach()
        past = torch.zeros_like(sums) if self.running is None else self.running.to(sums.device)
        self.running = self.settings.ema * past + sums

    def worst(self, usable: Tensor) -> Tensor:
        """Index [1] of the usable cell whose running gap is largest."""
        return _worst(signed_gaps(self.running).abs(), usable)

    def state_dict(self) -> dict:
        return {} if self.running is None else {"running": self.running.cpu()}

    def load_state_dict(self, state: dict) -> None:
        self.running = state.get("running")


class EMA(Running):
    """Size, sign and worst cell from the running means; the gradient goes through the batch."""

    def __call__(self, sums: Tensor) -> Tensor:
        usable, p = known(sums, 1), self.settings.p
        worst = self.worst(usable)
        running = pick(torch.where(usable, signed_gaps(self.running), 0.0), worst)
        now = pick(torch.where(usable, signed_gaps(sums), 0.0), worst)
        size = running.abs()
        return size**p + p * size ** (p - 1) * running.sign() * (now - now.detach())


class Unbiased(Running):
    """The squared gap less the variance of its two means; see the module docstring."""

    def __call__(self, sums: Tensor) -> Tensor:
        usable = known(sums, 2)
        squares = signed_gaps(sums).square() - variance_of_means(sums).sum(1)
        return pick(torch.where(usable, squares, 0.0), self.worst(usable))


ESTIMATORS = Registry("estimator")
ESTIMATORS["batch"] = Batch
ESTIMATORS["ema"] = EMA
ESTIMATORS["unbiased"] = Unbiased


def signed_gaps(sums: Tensor) -> Tensor:
    """Mean female less mean male loss, [C]; meaningless where a gender is absent (`known`)."""
    means = sums[0] / _at_least(sums[2], 1)
    return means[:, 0] - means[:, 1]


def variance_of_means(sums: Tensor) -> Tensor:
    """s^2 / n of each group, [C, 2]: the unbiased sample variance over the count."""
    total, square, count = sums
    spread = square - total.square() / _at_least(count, 1)
    return spread / _at_least(count - 1, 1) / _at_least(count, 1)


def known(sums: Tensor, least: int) -> Tensor:
    """Cells with at least so many utterances of each gender, bool [C]."""
    return (sums[2] >= least).all(dim=1)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """values[index] as a scalar."""
    return values.gather(0, index).squeeze(0)


def _worst(sizes: Tensor, usable: Tensor) -> Tensor:
    return torch.where(usable, sizes, -1.0).argmax(0, keepdim=True)


def _at_least(count: Tensor, least: float) -> Tensor:
    return count.clamp(min=least)  # a mean over less is never used
