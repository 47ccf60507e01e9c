"""With two known sides every objective is, to the bit, the one that knew women and men alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ermgap import config
from ermgap.objective import Objective

CELLS = [("de", "speech"), ("en", "speech"), ("ja", "speech")]
COUNTS = torch.tensor([[40.0, 55], [30, 5], [90, 0]], dtype=torch.float64)


class Former:
    """The formulas of two sides as they were written before there were more."""

    def __init__(self, settings: config.Objective) -> None:
        self.settings, self.running = settings, None
        uniform = torch.where(COUNTS > 0, 0.0, -torch.inf)
        self.log_q = uniform - uniform.flatten().logsumexp(0)

    def __call__(self, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """J and its gradient of one step."""
        past = torch.zeros_like(sums) if self.running is None else self.running
        self.running = self.settings.ema * past + sums
        loss = sums[0] / sums[2].clamp(min=1) + self.settings.dro_c / COUNTS.clamp(min=1).sqrt()
        log_q = self.log_q + torch.where(sums[2] > 0, self.settings.dro_eta * loss, 0.0)
        self.log_q = log_q - log_q.flatten().logsumexp(0)
        leaf = sums.clone().requires_grad_(True)
        value = self.objective(leaf)
        return value.detach(), *torch.autograd.grad(value, leaf)

    def objective(self, sums: torch.Tensor) -> torch.Tensor:
        """J of the sums [3, C, 2]."""
        told, (total, _, count) = self.settings, sums
        if told.loss == "groupdro":
            return (self.log_q.exp() * total / count.clamp(min=1)).sum()
        if told.loss == "reweight":
            weights = torch.where(COUNTS > 0, 1 / COUNTS.clamp(min=1), 0.0)
            return ratio((weights * sums[0]).sum(), (weights * sums[2]).sum())
        mean = ratio(sums[0].sum(), sums[2].sum())
        if told.loss == "erm" or told.lambda_max == 0:
            return mean
        penalty = (
            self.variance(sums) if told.loss == "vrex" else getattr(self, told.estimator)(sums)
        )
        if told.relative:
            power = (2.0 if told.loss == "vrex" else told.p) - 1
            inverse = torch.where(mean.detach() > 0, mean.detach(), 1.0) ** -power
            safe = (mean.detach() > 0) & inverse.isfinite()
            penalty = penalty * torch.where(safe, inverse, 0.0)
        return mean + told.lambda_max * penalty

    def variance(self, sums: torch.Tensor) -> torch.Tensor:
        present = sums[2] > 0
        means = ratio(sums[0], sums[2])
        centre, moved = ratio(means.sum(), present.sum()), present
        if self.settings.sides == "worse":
            moved, centre = present & (means > centre), centre.detach()
        apart = torch.where(moved, means - centre, 0.0)
        return ratio(apart.square().sum(), present.sum())

    def batch(self, sums: torch.Tensor) -> torch.Tensor:
        defined = (sums[2] >= 1).all(dim=1)
        sizes = signed(self.moved(sums, signed(sums))).abs()
        return pick(torch.where(defined, sizes, 0.0), largest(sizes, defined)) ** self.settings.p

    def ema(self, sums: torch.Tensor) -> torch.Tensor:
        defined, p, gaps = (sums[2] >= 1).all(dim=1), self.settings.p, signed(self.running)
        worst = largest(gaps.abs(), defined)
        running = pick(torch.where(defined, gaps, 0.0), worst)
        batch = pick(torch.where(defined, signed(self.moved(sums, gaps)), 0.0), worst)
        size = running.abs()
        return size**p + p * size ** (p - 1) * running.sign() * (batch - batch.detach())

    def unbiased(self, sums: torch.Tensor) -> torch.Tensor:
        defined = (sums[2] >= 2).all(dim=1)
        total, square, count = sums
        squares = signed(sums).square()
        spread = square - total.square() / count.clamp(min=1)
        squares = squares - (spread / (count - 1).clamp(min=1) / count.clamp(min=1)).sum(1)
        return pick(
            torch.where(defined, squares, 0.0), largest(signed(self.running).abs(), defined)
        )

    def moved(self, sums: torch.Tensor, gaps: torch.Tensor) -> torch.Tensor:
        if self.settings.sides == "both":
            return sums
        return torch.where(torch.stack([gaps > 0, gaps < 0], dim=1), sums, sums.detach())


def signed(sums: torch.Tensor) -> torch.Tensor:
    means = sums[0] / sums[2].clamp(min=1)
    return means[:, 0] - means[:, 1]


def largest(sizes: torch.Tensor, defined: torch.Tensor) -> torch.Tensor:
    return torch.where(defined, sizes, -1.0).argmax(0, keepdim=True)


def pick(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values.gather(0, index).squeeze(0)


def ratio(total: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return torch.where(count > 0, total / torch.where(count > 0, count, 1.0), 0.0)


def batch_of(random: np.random.Generator, *, ties: bool) -> torch.Tensor:
    """Sums [3, 3, 2] of 0 to 4 utterances a group; with `ties`, losses of few values."""
    sums = torch.zeros(3, 3, 2, dtype=torch.float64)
    for group in np.ndindex(3, 2):
        losses = random.gamma(2.0, size=random.integers(5))
        losses = torch.from_numpy(np.round(losses) if ties else losses)
        sums[(slice(None), *group)] = torch.stack(
            [losses.sum(), losses.square().sum(), torch.tensor(float(len(losses)))]
        )
    return sums


@settings(max_examples=400, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "loss": st.sampled_from(["minmaxgap"] * 4 + ["erm", "vrex", "groupdro", "reweight"]),
            "estimator": st.sampled_from(["batch", "ema", "unbiased"]),
            "p": st.sampled_from([1.0, 1.3, 2.0, 3.0]),
            "sides": st.sampled_from(["both", "worse"]),
            "relative": st.booleans(),
            "lambda_max": st.sampled_from([0.0, 0.3, 10.0]),
            "ema": st.sampled_from([0.0, 0.5, 0.9]),
            "dro_c": st.sampled_from([0.0, 2.0]),
        }
    ),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_over_random_sequences_values_and_gradients_are_the_former_ones(values, seed, ties):
    if values["estimator"] == "unbiased":
        values |= {"p": 2.0, "sides": "both"}
    told, random = config.Objective(**values), np.random.default_rng(seed)
    ours, former = Objective(told, cells=CELLS, counts=COUNTS), Former(told)
    for step in range(6):
        sums = batch_of(random, ties=ties)
        value, gradient = ours(sums, progress=0.5)
        wanted, slope = former(sums)
        assert torch.equal(value, wanted), step
        assert torch.equal(gradient[:2], slope[:2]), step
        if step == 3:  # a checkpoint, whose shapes are the former ones
            state = ours.state_dict()
            ours = Objective(told, cells=CELLS, counts=COUNTS)
            ours.load_state_dict(state)
            if values["loss"] in ("erm", "minmaxgap") and values["estimator"] != "batch":
                assert torch.equal(state["loss"]["running"], former.running)


@pytest.mark.parametrize("loss", ["erm", "minmaxgap", "vrex", "groupdro", "reweight"])
def test_a_column_without_utterances_of_unknown_side_changes_nothing(loss):
    told, random = config.Objective(loss=loss, estimator="ema"), np.random.default_rng(0)
    plain = Objective(told, cells=CELLS, counts=COUNTS)
    wider = Objective(told, cells=CELLS, counts=COUNTS, unknown=True)
    assert (plain.columns, wider.columns) == (2, 3)
    for _ in range(20):
        sums = batch_of(random, ties=False)
        value, gradient = plain(sums, progress=0.5)
        wanted, slope = wider(torch.nn.functional.pad(sums, (0, 1)), progress=0.5)
        assert float(value) == pytest.approx(float(wanted), rel=1e-14)
        assert gradient[0].numpy() == pytest.approx(slope[0, :, :2].numpy(), rel=1e-12, abs=1e-15)
