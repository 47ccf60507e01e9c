"""Estimators of the largest gap's p-th power, the penalty of `minmaxgap`: one registry line each.

With a_c, b_c the batch's mean female and male loss in cell c, n and s^2 their counts and sample
variances, and A_c, B_c running means (of sums and counts that decay by `ema` each step, this batch
included):

    batch       |a_w - b_w|^p,                                 w = argmax |a_c - b_c|
    ema         |A_w - B_w|^p in value,                        w = argmax |A_c - B_c|
                p |A_w - B_w|^(p-1) sign(A_w - B_w) d(a_w - b_w) in gradient
    unbiased    (a_w - b_w)^2 - s_a^2/n_a - s_b^2/n_b,         w as for ema; p = 2

That is `sides: both`. With `sides: worse` the values of `batch` and `ema` are the same, and the
gradient flows through the mean of the worse side alone (of `batch`: the side that is worse in this
batch, of `ema`: in the running means). With both sides, the better one's utterances have the weight
1/N - lambda p gap^(p-1) / n (N utterances in the batch, n of that side), so a step raises their
losses as soon as lambda p gap^(p-1) > n/N; with the worse side alone no weight is negative.

`batch` is the paper as read (arXiv 2603.21050). Its square is too large by the variance of both
means (with 4 utterances a gender by more than the gap itself), and its maximum picks the noisiest
cell; `unbiased` subtracts the variance (after Rychener et al., arXiv 2205.15049), which is exact
for one cell and not for the maximum, hence w from running means; it may be negative and is not
clamped, or the mean would be off again. Its price is a gradient whose noise grows with the losses:
on real speech with 16 utterances a batch, training diverged in three of five folds with lambda over
0.3, and was as good as with the others at 0.1 (tests/benchmarks/results/systems.md).

A cell in which the batch lacks a gender (two utterances of one for `unbiased`) adds no penalty:
its gap is unknown, not |L - 0|. Nothing here copies a number from the device, which would make the
host wait in every step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ermgap import config
from ermgap.registry import Registry


class Estimator(ABC):
    """The penalty from sums [3, C, 2] float64 (group_sums.py), with its state between steps."""

    def __init__(self, settings: config.Objective) -> None:
        self.settings = settings

    def observe(self, sums: Tensor) -> None:
        """Update the state with a step's sums; called once, before the penalty is computed."""

    @abstractmethod
    def __call__(self, sums: Tensor) -> Tensor:
        """The penalty, a float64 scalar that autograd can differentiate by the sums."""

    def moved(self, sums: Tensor, gaps: Tensor) -> Tensor:
        """The sums [3, C, 2], with a gradient in the sides that the penalty moves (`sides`).

        Args:
            gaps: mean female less mean male loss by which the worse side is chosen, [C].
        """
        if self.settings.sides == "both":
            return sums
        worse = torch.stack([gaps > 0, gaps < 0], dim=1)
        return torch.where(worse, sums, sums.detach())

    def state_dict(self) -> dict:
        """What a resumed run needs; plain numbers and tensors only."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""


class Batch(Estimator):
    """The gap of this batch alone. Where two cells tie, the gradient is that of the first."""

    def __call__(self, sums: Tensor) -> Tensor:
        defined = gap_is_defined(sums, 1)
        sizes = signed_gaps(self.moved(sums, signed_gaps(sums))).abs()
        # 0, without a gradient, where no gap is defined.
        return pick(torch.where(defined, sizes, 0.0), largest(sizes, defined)) ** self.settings.p


class Running(Estimator):
    """Running group means: the sums and counts of past batches, decayed."""

    def __init__(self, settings: config.Objective) -> None:
        super().__init__(settings)
        self.running: Tensor | None = None

    def observe(self, sums: Tensor) -> None:
        """Decay the running sums and add this batch's."""
        sums = sums.detach()
        past = torch.zeros_like(sums) if self.running is None else self.running.to(sums.device)
        self.running = self.settings.ema * past + sums

    def worst(self, defined: Tensor) -> Tensor:
        """Index [1] of the cell whose running gap is largest among the `defined` ones, bool [C]."""
        return largest(signed_gaps(self.running).abs(), defined)

    def state_dict(self) -> dict:
        return {} if self.running is None else {"running": self.running.cpu()}

    def load_state_dict(self, state: dict) -> None:
        self.running = state.get("running")


class EMA(Running):
    """Size, sign and worst cell from the running means; the gradient is that of the batch."""

    def __call__(self, sums: Tensor) -> Tensor:
        defined, p = gap_is_defined(sums, 1), self.settings.p
        worst, gaps = self.worst(defined), signed_gaps(self.running)
        running = pick(torch.where(defined, gaps, 0.0), worst)
        moved = signed_gaps(self.moved(sums, gaps))
        batch = pick(torch.where(defined, moved, 0.0), worst)
        size = running.abs()
        return size**p + p * size ** (p - 1) * running.sign() * (batch - batch.detach())


class Unbiased(Running):
    """The squared gap less the variance of its two means; see the module docstring."""

    def __call__(self, sums: Tensor) -> Tensor:
        defined = gap_is_defined(sums, 2)
        squares = signed_gaps(sums).square() - variance_of_means(sums).sum(1)
        return pick(torch.where(defined, squares, 0.0), self.worst(defined))


ESTIMATORS = Registry("estimator")
ESTIMATORS["batch"] = Batch
ESTIMATORS["ema"] = EMA
ESTIMATORS["unbiased"] = Unbiased


def signed_gaps(sums: Tensor) -> Tensor:
    """Mean female less mean male loss, [C]; meaningless where a gender is absent."""
    means = sums[0] / sums[2].clamp(min=1)
    return means[:, 0] - means[:, 1]


def variance_of_means(sums: Tensor) -> Tensor:
    """s^2 / n of each group, [C, 2]: the unbiased sample variance over the count."""
    total, square, count = sums
    spread = square - total.square() / count.clamp(min=1)
    return spread / (count - 1).clamp(min=1) / count.clamp(min=1)


def gap_is_defined(sums: Tensor, minimum: int) -> Tensor:
    """Whether a cell has at least `minimum` utterances of each gender, bool [C]."""
    return (sums[2] >= minimum).all(dim=1)


def largest(sizes: Tensor, defined: Tensor) -> Tensor:
    """Index [1] of the largest of the `defined` sizes; of the first cell where none is."""
    return torch.where(defined, sizes, -1.0).argmax(0, keepdim=True)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """values[index] as a scalar."""
    return values.gather(0, index).squeeze(0)
