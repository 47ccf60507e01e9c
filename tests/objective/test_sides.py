"""`sides: worse`: the value of the penalty stays, and no utterance's loss is pushed up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ermgap import config
from ermgap.errors import UserError
from ermgap.objective import Objective, group_sums, utterance_weights

CELLS = [("de", "speech"), ("en", "speech"), ("ja", "speech")]
COUNTS = torch.full((3, 2), 50.0)
batches = st.lists(
    st.tuples(st.floats(0, 20), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=40
)
chosen = st.fixed_dictionaries(
    {
        "loss": st.sampled_from(["minmaxgap", "vrex"]),
        "estimator": st.sampled_from(["batch", "ema"]),
        "relative": st.booleans(),
        "p": st.floats(1, 4),
        "lambda_max": st.floats(0, 1e4),
    }
)


def tensors(batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    losses, cell, gender = zip(*batch, strict=True)
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(cell), torch.tensor(gender)


def weights_of(objective: Objective, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """J, and the weight of each utterance."""
    losses, cell, gender = tensors(batch)
    value, gradient = objective(group_sums(losses, cell, gender, cells=3), progress=0.5)
    return value, utterance_weights(gradient, losses, cell, gender)


@settings(max_examples=300, deadline=None)
@given(chosen, st.lists(batches, min_size=1, max_size=4))
def test_with_the_worse_side_alone_no_weight_is_ever_negative(values, steps):
    one = Objective(config.Objective(sides="worse", **values), cells=CELLS, counts=COUNTS)
    both = Objective(config.Objective(sides="both", **values), cells=CELLS, counts=COUNTS)
    for batch in steps:
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
        made = config.Objective(loss="minmaxgap", p=p, lambda_max=fairness_weight)
        _, weights = weights_of(Objective(made, cells=CELLS, counts=COUNTS), batch)
        pull = fairness_weight * p * gap ** (p - 1)
        assert weights.tolist() == pytest.approx(
            [*[1 / 6 + pull / 2] * 2, *[1 / 6 - pull / 3] * 3, 1 / 6], abs=1e-14
        )
        assert bool((weights < 0).any()) == (pull > 3 / 6)


def test_the_unbiased_estimator_moves_both_sides_and_says_so():
    with pytest.raises(UserError) as refusal:
        config.Objective(loss="minmaxgap", estimator="unbiased", sides="worse")
    assert "objective.sides" in str(refusal.value) and "\n" not in str(refusal.value)
