"""The soft maximum over cells: the push sums to one, and a small temperature is `ema`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import soft_gap  # noqa: E402

from ermgap import config  # noqa: E402
from ermgap.objective.gap_estimators import EMA, ESTIMATORS  # noqa: E402

for name in [name for name in ESTIMATORS if name.startswith("soft:")]:
    del ESTIMATORS[name]  # other tests in this process go through all that are registered

SETTINGS = config.Objective(loss="minmaxgap", estimator="ema", p=1.0, sides="worse")


def push(estimator, sums):
    """d penalty / d S times N: the push on each group's mean loss, [C, S]."""
    leaf = sums.clone().requires_grad_()
    estimator.observe(leaf)
    (gradient,) = torch.autograd.grad(estimator(leaf), leaf)
    return gradient[0] * sums[2]


def soft(temperature):
    return type("Soft", (soft_gap.Soft,), {"temperature": temperature})(SETTINGS)


@pytest.fixture
def sums():
    count = torch.tensor([[5.0, 7.0], [6.0, 6.0], [9.0, 4.0]], dtype=torch.float64)
    mean = torch.tensor([[1.0, 1.2], [1.5, 0.9], [0.8, 0.7]], dtype=torch.float64)
    return torch.stack([mean * count, mean.square() * count, count])


def test_the_push_is_the_softmax_of_gaps_on_the_worse_sides(sums):
    expected = torch.zeros(3, 2, dtype=torch.float64)
    shares = torch.softmax(torch.tensor([0.2, 0.6, 0.1], dtype=torch.float64) / 0.2, 0)
    expected[[0, 1, 2], [1, 0, 0]] = shares
    torch.testing.assert_close(push(soft(0.2), sums), expected)


def test_a_small_temperature_is_the_maximum(sums):
    torch.testing.assert_close(push(soft(1e-4), sums), push(EMA(SETTINGS), sums))


def test_a_cell_of_one_side_is_not_pushed(sums):
    sums[:, 1, 0] = 0.0
    pushed = push(soft(0.2), sums)
    assert pushed[1].eq(0).all()
    assert pushed.sum() == pytest.approx(1.0)


def test_no_cell_with_two_sides_is_no_penalty(sums):
    sums[:, :, 0] = 0.0
    assert push(soft(0.2), sums).eq(0).all()
