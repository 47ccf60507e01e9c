"""Early stopping under two and three objectives: what is never stopped, and what always is."""

from __future__ import annotations

import numpy as np
import pytest

from ermgap.config import Config, Sweep, Train
from sweeps.search import stopping
from sweeps.search.stopping import StoppingRule

DIRECTIONS = ("max", "min")


def rule(fraction: float = 0.5, margins=(0.0, 0.0), directions=DIRECTIONS) -> StoppingRule:
    return StoppingRule((1, 2, 4), fraction, directions, margins)


def clouds(n: int, *, seed: int, objectives: int = 2, ties: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).random((n, objectives))
    return values.round(1) if ties else values


def by_peeling(costs: np.ndarray) -> list[int]:
    """Ranks by the definition: what no row still there dominates is the next front."""
    rest, rank, found = set(range(len(costs))), 0, [0] * len(costs)
    while rest:
        front = [
            i
            for i in rest
            if not any((costs[j] <= costs[i]).all() and (costs[j] < costs[i]).any() for j in rest)
        ]
        for i in front:
            found[i] = rank
        rest -= set(front)
        rank += 1
    return found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_those_of_the_definition_and_of_pareto_dominance_in_moocore(
    seed, objectives, ties
):
    import moocore

    costs = clouds(30, seed=seed, objectives=objectives, ties=ties)
    rank = stopping.ranks(costs)
    assert rank.tolist() == by_peeling(costs)
    front = moocore.is_nondominated(costs, keep_weakly=True)
    assert ((rank == 0) == front).all()


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("fraction", [0.01, 0.34, 1.0])
def test_a_point_on_the_front_goes_on_and_what_all_others_beat_is_stopped(seed, fraction):
    values = clouds(25, seed=seed)
    rank = stopping.ranks(values * (-1, 1))
    for i in np.flatnonzero(rank == 0):
        assert rule(fraction).goes_on(values[i], np.delete(values, i, axis=0))
    worst = [values[:, 0].min() - 0.01, values[:, 1].max() + 0.01]
    assert rule(fraction).goes_on(worst, values) == (fraction == 1.0)


@pytest.mark.parametrize("seed", range(30))
def test_the_decision_is_one_of_the_set_and_not_of_its_order(seed):
    rng = np.random.default_rng(seed)
    values = clouds(20, seed=seed, ties=bool(seed % 2))
    answers = [rule(0.4).goes_on(values[0], rng.permutation(values[1:])) for _ in range(10)]
    assert len(set(answers)) == 1
    twin = values[0].copy()  # two that say the same are told the same
    with_twin = np.vstack([values[1:], twin])
    assert rule(0.4).goes_on(values[0], with_twin) == rule(0.4).goes_on(twin, with_twin)


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_at_least_the_fraction_goes_on_and_no_worse_rank_before_a_better_one(fraction):
    for seed in range(20):
        values = clouds(24, seed=seed)
        rank = stopping.ranks(values * (-1, 1))
        kept = np.array(
            [
                rule(fraction).goes_on(values[i], np.delete(values, i, axis=0))
                for i in range(len(values))
            ]
        )
        places = int(np.ceil(fraction * len(values)))
        # The two ends of a front are equally wide: both go on where there is place for one.
        least = max(places, (rank == 0).sum())
        assert least <= kept.sum() <= least + 1
        assert rank[kept].max() <= rank[~kept].min()


def test_a_margin_protects_what_lies_within_it_of_the_front_and_no_more():
    front = [(0.70, 0.10), (0.65, 0.05)]
    strict, wide = rule(0.01), rule(0.01, margins=(0.02, 0.02))
    near, far = (0.69, 0.11), (0.67, 0.13)
    assert not strict.goes_on(near, front)
    assert wide.goes_on(near, front)
    assert not wide.goes_on(far, front)


@pytest.mark.parametrize("seed", range(10))
def test_a_wider_margin_stops_no_more(seed):
    values = clouds(20, seed=seed)
    for i in range(len(values)):
        others = np.delete(values, i, axis=0)
        answers = [rule(0.3, margins=(m, m)).goes_on(values[i], others) for m in (0, 0.05, 0.2, 1)]
        assert answers == sorted(answers) and answers[-1]


def test_one_without_values_is_stopped_and_ranks_behind_all():
    assert not rule(1.0).goes_on([np.nan, 0.1], [])
    assert rule(0.5).goes_on([0.3, 0.3], [[np.nan, np.nan], [np.inf, 0.0]])
    assert rule(0.5).goes_on([0.3, 0.3], [])
    # With three that have none, a beaten one is second of five: within the better half.
    others = [[0.9, 0.1], *[[np.nan, 0.0]] * 3]
    assert rule(0.5).goes_on([0.3, 0.3], others)
    assert not rule(0.2).goes_on([0.3, 0.3], others)


def test_scales_and_directions_of_the_objectives_do_not_matter_without_a_margin():
    values = clouds(20, seed=5)
    for i in range(len(values)):
        others = np.delete(values, i, axis=0)
        answers = rule(0.4).goes_on(values[i], others)
        scaled = rule(0.4).goes_on(values[i] * (100, 7) + (3, -2), others * (100, 7) + (3, -2))
        turned = rule(0.4, directions=("min", "max")).goes_on(-values[i], -others)
        assert answers == scaled == turned


def test_rungs_are_a_geometric_ladder_below_the_last_epoch():
    for epochs, grace, factor, wanted in [
        (20, 1, 3, (1, 3, 9)),
        (6, 2, 2, (2, 4)),
        (6, 6, 2, ()),
        (6, None, 2, ()),
    ]:
        sweep = {"stop_after": grace, "stop_factor": factor}
        assert Config(train=Train(epochs=epochs), sweep=Sweep(**sweep)).rungs == wanted


def test_crowding_is_that_of_its_definition():
    costs = np.array([[0.0, 1.0], [0.2, 0.5], [0.6, 0.4], [1.0, 0.0], [0.2, 0.5]])
    assert stopping.crowding(costs).tolist() == pytest.approx(
        [np.inf, 0.6 + 0.6, 0.8 + 0.5, np.inf, 0.6 + 0.6]
    )
