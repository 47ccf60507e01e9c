"""Estimators of the largest gap's p-th power, the penalty of `minmaxgap`: one registry line each.

The gap of a cell c is that between its sides of the highest and of the lowest mean loss, among the
sides that the batch holds. With a_c, b_c the batch's means of these two, n and s^2 their counts and
sample variances, and A_c, B_c their running means (of sums and counts that decay by `ema` each
step, this batch included):

    batch       (a_w - b_w)^p, the two sides by the batch's means,  w = argmax a_c - b_c
    ema         (A_w - B_w)^p in value, the two by running means,   w = argmax A_c - B_c
                p (A_w - B_w)^(p-1) d(a_w - b_w) in gradient
    unbiased    (a_w - b_w)^2 - s_a^2/n_a - s_b^2/n_b,              both as for ema; p = 2

That is `sides: both`. With `sides: worse` the values of `batch` and `ema` are the same, and the
gradient flows through a_w, the mean of the worse side, alone. With both sides, the better one's
utterances have the weight 1/N - lambda p gap^(p-1) / n (N utterances in the batch, n of that side),
so a step raises their losses as soon as lambda p gap^(p-1) > n/N; with the worse side alone no
weight is negative. Sides between the two are moved as by ERM. Of sides that tie for the highest
mean and of cells that tie the first is taken, for the lowest mean the last; a gap of 0 has no
gradient in `batch` and `ema`.

`batch` is the paper as read (arXiv 2603.21050), for two sides. Its square is too large by the
variance of both means (with 4 utterances a side by more than the gap itself), and its maximum picks
the noisiest pair of the noisiest cell. `unbiased` subtracts the variance (after Rychener et al.,
arXiv 2205.15049): E (a - b)^2 = (mu_a - mu_b)^2 + Var a + Var b, and s^2/n estimates Var without
bias. That is exact for a pair of sides whichever way it was chosen, as long as the losses of this
batch did not choose it; for a maximum over pairs or cells it is not, since the pair that leads by
chance has a difference that is large by chance. Hence cell and pair from running means, in which
this batch has a share of about 1 - ema alone. The estimate may be negative and is not clamped, or
the mean would be off again. Its price is a gradient whose noise grows with the losses: on real
speech with 16 utterances a batch, training diverged in three of five folds with lambda over 0.3,
and was as good as with the others at 0.1 (tests/benchmarks/results/systems.md).

A cell in which the batch holds fewer than two sides (with two utterances each for `unbiased`) adds
no penalty: its gap is unknown, not |L - 0|. Nothing here copies a number from the device, which
would make the host wait in every step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ermgap import config
from ermgap.registry import Registry


class Estimator(ABC):
    """The penalty from sums [3, C, S] float64 (group_sums.py), with its state between steps."""

    def __init__(self, settings: config.Objective) -> None:
        self.settings = settings

    def observe(self, sums: Tensor) -> None:
        """Update the state with a step's sums; called once, before the penalty is computed."""

    @abstractmethod
    def __call__(self, sums: Tensor) -> Tensor:
        """The penalty, a float64 scalar that autograd can differentiate by the sums."""

    def gaps(self, sums: Tensor, pairs: Tensor) -> Tensor:
        """`gaps_of` the batch's means, with a gradient in the sides that the penalty moves."""
        higher, lower = side_means(sums).gather(1, pairs).unbind(1)
        return higher - (lower if self.settings.sides == "both" else lower.detach())

    def state_dict(self) -> dict:
        """What a resumed run needs; plain numbers and tensors only."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""


class Batch(Estimator):
    """The gap of this batch alone. Where two cells tie, the gradient is that of the first."""

    def __call__(self, sums: Tensor) -> Tensor:
        pairs, defined = extremes(side_means(sums), sums[2] >= 1)
        sizes = self.gaps(sums, pairs).abs()  # without a gradient where the gap is 0
        # 0, without a gradient, where no gap is defined.
        return pick(torch.where(defined, sizes, 0.0), largest(sizes, defined)) ** self.settings.p


class Running(Estimator):
    """Running group means: the sums and counts of past batches, decayed."""

    def __init__(self, settings: config.Objective) -> None:
        super().__init__(settings)
        self.running: Tensor | None = None  # [3, C, S]

    def observe(self, sums: Tensor) -> None:
        """Decay the running sums and add this batch's."""
        sums = sums.detach()
        past = torch.zeros_like(sums) if self.running is None else self.running.to(sums.device)
        self.running = self.settings.ema * past + sums

    def running_gaps(self, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gaps of the running means between the `present` sides (bool [C, S]).

        Returns:
            The gaps [C], 0 where undefined; the two sides of each [C, 2]; index [1] of the largest.
        """
        means = side_means(self.running)
        pairs, defined = extremes(means, present)
        gaps = gaps_of(means, pairs)
        return torch.where(defined, gaps, 0.0), pairs, largest(gaps, defined)

    def state_dict(self) -> dict:
        return {} if self.running is None else {"running": self.running.cpu()}

    def load_state_dict(self, state: dict) -> None:
        self.running = state.get("running")


class EMA(Running):
    """Size, sides and worst cell from the running means; the gradient is that of the batch."""

    def __call__(self, sums: Tensor) -> Tensor:
        running, pairs, worst = self.running_gaps(sums[2] >= 1)
        size, p = pick(running, worst), self.settings.p
        batch = pick(self.gaps(sums, pairs), worst)
        return size**p + p * size ** (p - 1) * size.sign() * (batch - batch.detach())


class Unbiased(Running):
    """The squared gap less the variance of its two means; see the module docstring."""

    def __call__(self, sums: Tensor) -> Tensor:
        enough = sums[2] >= 2
        _, pairs, worst = self.running_gaps(enough)
        squares = self.gaps(sums, pairs).square()
        squares = squares - variance_of_means(sums).gather(1, pairs).sum(1)
        return pick(torch.where(enough.sum(1) >= 2, squares, 0.0), worst)


ESTIMATORS = Registry("estimator")
ESTIMATORS["batch"] = Batch
ESTIMATORS["ema"] = EMA
ESTIMATORS["unbiased"] = Unbiased


def side_means(sums: Tensor) -> Tensor:
    """Mean loss per cell and side, [C, S]; meaningless where a side is absent."""
    return sums[0] / sums[2].clamp(min=1)


def extremes(means: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The two sides of each cell whose means are compared.

    Args:
        means: [C, S].
        present: sides that can be compared, bool [C, S].

    Returns:
        [C, 2] int64, the sides of the highest and of the lowest mean; bool [C], whether a cell has
        two that can be compared.
    """
    highest = torch.where(present, means, -torch.inf).argmax(1)
    # The last of the lowest ones: two sides even where all tie.
    lowest = means.shape[1] - 1 - torch.where(present, means, torch.inf).flip(1).argmin(1)
    return torch.stack([highest, lowest], dim=1), present.sum(1) >= 2


def gaps_of(means: Tensor, pairs: Tensor) -> Tensor:
    """The first mean of each pair less the second, [C], of means [C, S] and pairs [C, 2]."""
    higher, lower = means.gather(1, pairs).unbind(1)
    return higher - lower


def variance_of_means(sums: Tensor) -> Tensor:
    """s^2 / n of each group, [C, S]: the unbiased sample variance over the count."""
    total, square, count = sums
    spread = square - total.square() / count.clamp(min=1)
    return spread / (count - 1).clamp(min=1) / count.clamp(min=1)


def largest(sizes: Tensor, defined: Tensor) -> Tensor:
    """Index [1] of the largest of the `defined` sizes; of the first cell where none is."""
    return torch.where(defined, sizes, -1.0).argmax(0, keepdim=True)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """values[index] as a scalar."""
    return values.gather(0, index).squeeze(0)
