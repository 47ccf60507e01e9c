"""`sides: worse`: the value of the penalty stays, and no utterance's loss is pushed up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ermgap import config
from ermgap.errors import UserError
from ermgap.objective import Objective, group_sums, utterance_weights

CELLS = [("de", "speech"), ("en", "speech"), ("ja", "speech")]


def batches(columns: int) -> st.SearchStrategy:
    """Loss, cell and column of up to 40 utterances."""
    utterances = st.tuples(st.floats(0, 20), st.integers(0, 2), st.integers(0, columns - 1))
    return st.lists(utterances, min_size=1, max_size=40)


chosen = st.fixed_dictionaries(
    {
        "loss": st.sampled_from(["minmaxgap", "vrex"]),
        "estimator": st.sampled_from(["batch", "ema"]),
        "relative": st.booleans(),
        "p": st.floats(1, 4),
        "lambda_max": st.floats(0, 1e4),
    }
)


def made(told: config.Objective, sides: int = 2, *, unknown: bool = False) -> Objective:
    return Objective(told, cells=CELLS, counts=torch.full((3, sides), 50.0), unknown=unknown)


def weights_of(objective: Objective, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """J, and the weight of each utterance."""
    losses, cell, side = (torch.from_numpy(np.array(column)) for column in zip(*batch, strict=True))
    sums = group_sums(losses, cell, side, cells=3, sides=objective.columns)
    value, gradient = objective(sums, progress=0.5)
    return value, utterance_weights(gradient, losses, cell, side)


@settings(max_examples=300, deadline=None)
@given(chosen, st.sampled_from([2, 3, 7]), st.booleans(), st.data())
def test_with_the_worse_side_alone_no_weight_is_ever_negative(values, sides, unknown, drawn):
    one = made(config.Objective(sides="worse", **values), sides, unknown=unknown)
    both = made(config.Objective(sides="both", **values), sides, unknown=unknown)
    for batch in drawn.draw(st.lists(batches(one.columns), min_size=1, max_size=4)):
        (value, weights), (value_of_both, _) = weights_of(one, batch), weights_of(both, batch)
        assert (weights >= 0).all()
        if values["loss"] == "minmaxgap":
            assert float(value) == pytest.approx(float(value_of_both), rel=1e-12)
        else:
            assert value <= value_of_both * (1 + 1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_with_both_sides_the_better_one_s_weight_is_the_formula_of_levelling_down(p):
    """1/N - lambda p gap^(p-1) / n, negative from lambda p gap^(p-1) > n/N on."""
    batch = [(3.0, 0, 0), (2.0, 0, 0), (1.0, 0, 1), (0.4, 0, 1), (0.1, 0, 1), (5.0, 1, 0)]
    gap = 2.5 - 0.5
    for fairness_weight in (0.01, 0.24, 0.3, 2.0):
        told = config.Objective(loss="minmaxgap", p=p, lambda_max=fairness_weight)
        _, weights = weights_of(made(told), batch)
        pull = fairness_weight * p * gap ** (p - 1)
        assert weights.tolist() == pytest.approx(
            [*[1 / 6 + pull / 2] * 2, *[1 / 6 - pull / 3] * 3, 1 / 6], abs=1e-14
        )
        assert bool((weights < 0).any()) == (pull > 3 / 6)


def test_the_unbiased_estimator_moves_both_sides_and_says_so():
    with pytest.raises(UserError) as refusal:
        config.Objective(loss="minmaxgap", estimator="unbiased", sides="worse")
    assert "objective.sides" in str(refusal.value) and "\n" not in str(refusal.value)
