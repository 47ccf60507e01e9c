"""Objectives J(S, Q, N; lambda): a class and a registry line each.

A loss is made from the `objective` section of the configuration and the number of training
utterances per group, and is called with the global batch's sums (see group_sums.py) and the current
fairness weight lambda. It returns a float64 scalar that autograd can differentiate with respect to
the sums. With L the mean loss of the batch and L_g that of group g (a side in a cell):

    erm         L
    minmaxgap   L + lambda R, R an estimate of (max over cells and pairs of sides |L_a - L_b|)^p
    vrex        L + lambda Var_g(L_g)
    groupdro    sum_g q_g L_g, with q_g growing where L_g is large
    reweight    sum_g w_g S_g / sum_g w_g N_g, with w_g inverse to the group's size in training

With `relative`, the penalties R and Var become L (R / L^p) and L (Var / L^2), L detached, so that
lambda has no scale of its own: multiplying all losses by c multiplies J by c; where L is 0, the
penalty is 0. A batch without any utterance has J = 0.

Utterances of unknown side, where training has some, are in L and in no group: penalties, q and w
are of the S known sides alone. `groupdro` and `reweight` keep these utterances at their weight in
L: with N_k of the batch's N utterances known, J is N_k / N times the sum above plus the sum of the
other losses over N. To add a loss:

    class Mine(Loss):
        def __call__(self, sums, fairness_weight): ...
    LOSSES["mine"] = Mine
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ermgap import config
from ermgap.objective.gap_estimators import EMA, ESTIMATORS
from ermgap.registry import Registry


class Loss(ABC):
    """Base class of losses: override `__call__`, and the state if there is any.

    Attributes:
        settings: the `objective` section of the configuration.
        counts: training utterances per cell and known side, [C, S] float64.
    """

    #: Whether the fairness weight has any influence; a loss without one records 0.
    has_fairness_weight = True

    def __init__(self, settings: config.Objective, counts: Tensor) -> None:
        self.settings = settings
        self.counts = counts

    def observe(self, sums: Tensor) -> None:
        """Update the state with a step's sums; called once, before J, without gradient."""

    def known(self, sums: Tensor) -> Tensor:
        """The sums of the known sides, [3, C, S]."""
        return sums if sums.shape[2] == self.counts.shape[1] else sums[..., :-1]

    def with_unknown(self, value: Tensor, sums: Tensor) -> Tensor:
        """J of all utterances, from its `value` over those of known side."""
        if sums.shape[2] == self.counts.shape[1]:
            return value
        everything = sums[2].sum()
        share = ratio(self.known(sums)[2].sum(), everything)
        return share * value + ratio(sums[0, :, -1].sum(), everything)

    @abstractmethod
    def __call__(self, sums: Tensor, fairness_weight: float) -> Tensor:
        """J as a float64 scalar from sums and lambda.

        Args:
            sums: [3, C, S] float64, or [3, C, S + 1] where training has utterances of unknown side.
        """

    def state_dict(self) -> dict:
        """What a resumed run needs; plain numbers and tensors only."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""


def mean_loss(sums: Tensor) -> Tensor:
    """The mean over all utterances of the global batch, sum S / sum N; 0 without any."""
    return ratio(sums[0].sum(), sums[2].sum())


def ratio(total: Tensor, count: Tensor) -> Tensor:
    """total / count; 0, with a gradient of 0, where `count` (or a sum of weights) is 0."""
    return torch.where(count > 0, total / torch.where(count > 0, count, 1.0), 0.0)


class ERM(Loss):
    """Empirical risk minimisation: the mean loss over the utterances of the global batch.

    It keeps the running group means that a branch goes on from, as if it had been there before.
    """

    has_fairness_weight = config.losses.LOSSES["erm"].has_fairness_weight

    def __init__(self, settings: config.Objective, counts: Tensor) -> None:
        super().__init__(settings, counts)
        self.running = EMA(settings)

    def observe(self, sums: Tensor) -> None:
        self.running.observe(self.known(sums))

    def state_dict(self) -> dict:
        return self.running.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.running.load_state_dict(state)

    def __call__(self, sums: Tensor, fairness_weight: float) -> Tensor:
        return mean_loss(sums)


class Penalised(Loss):
    """L + lambda * penalty; `power`, for `relative`, is the penalty's degree in the losses."""

    power: float

    @abstractmethod
    def penalty(self, sums: Tensor) -> Tensor:
        """What lambda multiplies, a float64 scalar, from the sums of known sides [3, C, S]."""

    def __call__(self, sums: Tensor, fairness_weight: float) -> Tensor:
        mean = mean_loss(sums)
        if fairness_weight == 0:
            return mean
        penalty = self.penalty(self.known(sums))
        if self.settings.relative:
            penalty = penalty * inverse_power(mean.detach(), self.power - 1)
        return mean + fairness_weight * penalty


def inverse_power(mean: Tensor, power: float) -> Tensor:
    """mean^-power, and 0 where the mean is 0 or so small that the power overflows."""
    inverse = torch.where(mean > 0, mean, 1.0) ** -power
    return torch.where((mean > 0) & inverse.isfinite(), inverse, 0.0)


class MinMaxGap(Penalised):
    """ERM + lambda * (largest difference of two sides' mean losses in a cell)^p.

    For two sides that is arXiv 2603.21050. With `sides: worse` the gradient of the penalty flows
    through the worse side's mean alone.
    """

    def __init__(self, settings: config.Objective, counts: Tensor) -> None:
        super().__init__(settings, counts)
        self.power = settings.p
        self.estimator = ESTIMATORS.find(settings.estimator)(settings)

    def observe(self, sums: Tensor) -> None:
        self.estimator.observe(self.known(sums))

    def penalty(self, sums: Tensor) -> Tensor:
        return self.estimator(sums)

    def state_dict(self) -> dict:
        return self.estimator.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.estimator.load_state_dict(state)


class VREx(Penalised):
    """ERM + lambda * variance of the groups' mean losses (V-REx, arXiv 2003.00688, equation 8).

    The population variance over the groups that the batch holds. With `sides: worse` the squares of
    groups above the mean of means alone, which is detached: no group is pushed up to it.
    """

    power = 2.0

    def penalty(self, sums: Tensor) -> Tensor:
        total, _, count = sums
        present = count > 0
        means = ratio(total, count)
        centre = ratio(means.sum(), present.sum())
        moved = present
        if self.settings.sides == "worse":
            moved, centre = present & (means > centre), centre.detach()
        apart = torch.where(moved, means - centre, 0.0)
        return ratio(apart.square().sum(), present.sum())


class GroupDRO(Loss):
    """Worst-group risk by exponentiated gradient (Sagawa et al., arXiv 1911.08731, algorithm 1).

    With each batch, q_g <- q_g exp(eta (L_g + C / sqrt(n_g))) for its groups, then q is normalised,
    and J = sum_g q_g L_g. n_g is the group's size in training; a group that the batch lacks keeps
    its q_g until the normalisation, and adds nothing to J. eta is `dro_eta`, C is `dro_c`.
    """

    has_fairness_weight = config.losses.LOSSES["groupdro"].has_fairness_weight

    def __init__(self, settings: config.Objective, counts: Tensor) -> None:
        super().__init__(settings, counts)
        uniform = torch.where(counts > 0, 0.0, -torch.inf)
        self.log_q = uniform - uniform.flatten().logsumexp(0)

    def observe(self, sums: Tensor) -> None:
        total, _, count = self.known(sums).detach()
        counts, log_q = self.counts.to(sums.device), self.log_q.to(sums.device)
        loss = total / count.clamp(min=1) + self.settings.dro_c / counts.clamp(min=1).sqrt()
        log_q = log_q + torch.where(count > 0, self.settings.dro_eta * loss, 0.0)
        self.log_q = log_q - log_q.flatten().logsumexp(0)

    def __call__(self, sums: Tensor, fairness_weight: float) -> Tensor:
        total, _, count = self.known(sums)
        value = (self.log_q.to(sums.device).exp() * total / count.clamp(min=1)).sum()
        return self.with_unknown(value, sums)

    def state_dict(self) -> dict:
        return {"log_q": self.log_q.cpu()}

    def load_state_dict(self, state: dict) -> None:
        self.log_q = state["log_q"]


class Reweight(Loss):
    """Weighted mean loss in which every group counts alike over an epoch.

    J = sum_g w_g S_g / sum_g w_g N_g with w_g = 1 / n_g, n_g the group's size in training.
    """

    has_fairness_weight = config.losses.LOSSES["reweight"].has_fairness_weight

    def __call__(self, sums: Tensor, fairness_weight: float) -> Tensor:
        counts, (total, _, count) = self.counts.to(sums.device), self.known(sums)
        group_weights = torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0)
        value = ratio((group_weights * total).sum(), (group_weights * count).sum())
        return self.with_unknown(value, sums)


LOSSES = Registry("loss")
LOSSES["erm"] = ERM
LOSSES["minmaxgap"] = MinMaxGap
LOSSES["groupdro"] = GroupDRO
LOSSES["reweight"] = Reweight
LOSSES["vrex"] = VREx


def value_and_gradient(loss: Loss, sums: Tensor, fairness_weight: float) -> tuple[Tensor, Tensor]:
    """J and dJ/d(S, Q, N), float64 in the shape of `sums`, at the global batch's sums."""
    leaf = sums.detach().clone().requires_grad_(True)
    value = loss(leaf, fairness_weight)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient
