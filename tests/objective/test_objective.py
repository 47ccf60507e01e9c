"""Values and gradients of the objective over sums, and the schedules, by hand.

What workers and micro-batches make of them is in test_objective_workers.py.
"""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest
import torch

from ermgap import config
from ermgap.objective import LOSSES, Loss, Objective, group_means, group_sums
from ermgap.objective.losses import value_and_gradient

CELLS = [("de", "speech"), ("en", "speech")]
COUNTS = torch.tensor([[10.0, 20.0], [30.0, 40.0]], dtype=torch.float64)


def sums_of(groups: dict[tuple[int, int], list[float]], cells: int = 2) -> torch.Tensor:
    """[3, C, 2] from the losses of each (cell, side), added up in plain Python."""
    sums = torch.zeros(3, cells, 2, dtype=torch.float64)
    for (cell, side), values in groups.items():
        wanted = (math.fsum(values), math.fsum(v * v for v in values), len(values))
        sums[:, cell, side] = torch.tensor(wanted, dtype=torch.float64)
    return sums


def gap_loss(p: float = 2.0, loss: str = "minmaxgap") -> Loss:
    return LOSSES[loss](config.Objective(loss=loss, p=p), COUNTS)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
def test_a_cell_that_lacks_a_side_makes_no_penalty_and_no_gradient_of_one(p):
    with_both = {(0, 0): [1.0, 2.0], (0, 1): [1.2]}
    value, gradient = value_and_gradient(
        gap_loss(p), sums_of(with_both | {(1, 0): [50.0, 60.0]}), 3.0
    )
    mean = (1 + 2 + 1.2 + 50 + 60) / 5
    assert float(value) == pytest.approx(mean + 3 * 0.3**p, rel=1e-14)
    assert gradient[0, 1, 0] == pytest.approx(1 / 5, rel=1e-14)  # of the mean loss alone
    slope = 3 * p * 0.3 ** (p - 1)
    assert gradient[0, 0].tolist() == pytest.approx([0.2 + slope / 2, 0.2 - slope], rel=1e-13)


def test_where_every_cell_lacks_a_side_the_objective_is_erm():
    sums = sums_of({(0, 0): [1.0, 2.0], (1, 1): [7.0]})
    ours = value_and_gradient(gap_loss(), sums, 5.0)
    erm = value_and_gradient(gap_loss(loss="erm"), sums, 5.0)
    assert float(ours[0]) == pytest.approx(10 / 3)
    assert ours[0] == erm[0] and torch.equal(ours[1], erm[1])


def test_of_two_cells_that_tie_the_first_is_pulled():
    groups = {(0, 0): [3.0], (0, 1): [1.0, 1.0], (1, 0): [2.0], (1, 1): [4.0]}
    value, gradient = value_and_gradient(gap_loss(), sums_of(groups), 0.5)
    assert float(value) == pytest.approx(11 / 5 + 0.5 * 4)
    assert gradient[0].flatten().tolist() == pytest.approx([0.2 + 2, 0.2 - 1, 0.2, 0.2])


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
def test_at_a_gap_of_zero_the_gradient_is_that_of_erm(p):
    groups = {(0, 0): [2.0], (0, 1): [1.0, 3.0], (1, 0): [5.0], (1, 1): [5.0]}
    _, gradient = value_and_gradient(gap_loss(p), sums_of(groups), 4.0)
    assert gradient[0].flatten().tolist() == [0.2] * 4


@pytest.mark.parametrize("loss", ["erm", "minmaxgap"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_shows_in_the_value(loss, bad):
    groups = {(0, 0): [2.0], (0, 1): [1.0], (1, 0): [bad], (1, 1): [5.0]}
    assert not math.isfinite(value_and_gradient(gap_loss(loss=loss), sums_of(groups), 1.0)[0])


def test_group_means_are_means_and_undefined_without_utterances():
    losses = torch.rand(24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cells = torch.arange(24) % 3
    sides = torch.where(cells == 2, 0, torch.arange(24) % 2)
    means = group_means(group_sums(losses, cells, sides, cells=3, sides=2))
    for cell, side in product(range(3), range(2)):
        group = losses[(cells == cell) & (sides == side)]
        wanted = pytest.approx(float(group.mean()), rel=1e-13, nan_ok=True)
        assert float(means[cell, side]) == wanted
    assert torch.isnan(means).nonzero().tolist() == [[2, 1]]


# The fairness weight ------------------------------------------------------------------------------


def minmaxgap(**settings) -> Objective:
    return Objective(config.Objective(loss="minmaxgap", **settings), cells=CELLS, counts=COUNTS)


def test_constant_and_linear_schedules_follow_their_formulas():
    constant = minmaxgap(schedule="constant", lambda_max=3.0)
    linear = minmaxgap(schedule="linear", lambda_max=3.0, start=0.25, ramp=0.5)
    late = minmaxgap(schedule="linear", lambda_max=3.0, start=0.5, ramp=1.0)
    for progress in np.linspace(0, 1, 41):
        assert constant.fairness_weight(progress) == 3.0
        assert linear.fairness_weight(progress) == pytest.approx(
            np.interp(progress, [0.25, 0.75], [0.0, 3.0]), abs=1e-15
        )
        assert late.fairness_weight(progress) == pytest.approx(
            3 * max(progress - 0.5, 0), abs=1e-15
        )


def test_the_other_schedules_rise_by_their_formulas():
    u = np.linspace(0, 1, 21)
    shapes = {
        "cosine": (1 - np.cos(np.pi * u)) / 2,
        "exponential": (np.exp(5 * u) - 1) / (np.exp(5) - 1),
    }
    for name, wanted in shapes.items():
        objective = minmaxgap(schedule=name, lambda_max=3.0, start=0.25, ramp=0.5)
        values = [objective.fairness_weight(0.25 + 0.5 * x) for x in u]
        assert values == pytest.approx(3 * wanted, abs=1e-12)
        assert objective.fairness_weight(0.1) == 0
        assert objective.fairness_weight(0.9) == pytest.approx(3.0)
    step = minmaxgap(schedule="step", lambda_max=3.0, start=0.25)
    assert [step.fairness_weight(x) for x in (0.0, 0.2499, 0.25, 1.0)] == [0.0, 0.0, 3.0, 3.0]


def test_erm_has_no_fairness_weight_whatever_its_schedule():
    objective = Objective(config.Objective(loss="erm", lambda_max=3.0), cells=CELLS, counts=COUNTS)
    assert objective.fairness_weight(0.7) == 0


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize(("gap", "metric"), [("max_gap", "max_gap"), ("loss", "max_loss_gap")])
def test_the_adaptive_schedule_is_a_projected_ascent_on_the_dev_gap(every, gap, metric):
    random = np.random.default_rng(1)
    series = np.where(random.random(60) < 0.5, 0.01, 0.09) * random.random(60) * 2
    series[random.random(60) < 0.2] = np.nan
    series[:6] = np.nan, 0.0, 0.0, 0.0, 0.0, 0.0
    other = {"max_gap": 99.0, "max_loss_gap": 99.0}
    objective = minmaxgap(
        schedule="adaptive",
        lambda_0=0.1,
        lambda_max=0.9,
        eta=9.0,
        epsilon=0.02,
        every=every,
        gap=gap,
    )
    by_hand, seen = 0.1, set()
    for number, value in enumerate(series, start=1):
        objective.evaluated(other | {metric: value})
        if number % every == 0 and value == value:
            by_hand = float(np.clip(by_hand + 9.0 * (value - 0.02), 0.0, 0.9))
        fairness_weight = objective.fairness_weight(random.random())
        assert fairness_weight == pytest.approx(by_hand, abs=1e-14), number
        seen.add(by_hand)
    assert {0.0, 0.9} <= seen and len(seen) > 5


def test_a_restored_schedule_goes_on_where_it_was():
    settings = {"schedule": "adaptive", "lambda_0": 1.0, "eta": 3.0, "every": 2}
    whole, first, second = (minmaxgap(**settings) for _ in range(3))
    series = [0.4, 0.3, 0.2, 0.5, 0.1, 0.7, 0.3]
    for gap in series:
        whole.evaluated({"max_gap": gap})
    for gap in series[:3]:
        first.evaluated({"max_gap": gap})
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for gap in series[3:]:
        second.evaluated({"max_gap": gap})
    assert second.fairness_weight(0.1) == whole.fairness_weight(0.1) != first.fairness_weight(0.1)
    assert second.state_dict() == whole.state_dict()
