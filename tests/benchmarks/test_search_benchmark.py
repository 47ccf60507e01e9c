"""The comparison of searches measures what it says: problems, surrogate, contenders, report."""

from __future__ import annotations

import sys
from pathlib import Path

import moocore
import numpy as np
import pytest

BENCH = Path(__file__).parent
sys.path.insert(0, str(BENCH))

import figures_search  # noqa: E402
import search_design  # noqa: E402
import search_ours  # noqa: E402
import search_problems  # noqa: E402
import search_report  # noqa: E402

PROBLEMS = search_problems.DESIGN | search_problems.UNTOUCHED


def draw(problem, seed: int = 0) -> dict:
    """A random configuration."""
    rng, x = np.random.default_rng(seed), {}
    for name, given in problem.space.items():
        if "choices" in given:
            x[name] = given["choices"][rng.integers(len(given["choices"]))]
        else:
            low, high = given["low"], given["high"]
            u = rng.random()
            x[name] = low * (high / low) ** u if given["log"] else low + (high - low) * u
    return x


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_a_curve_ends_at_the_truth_but_for_its_noise(problem):
    x = draw(problem)
    curves = np.array([problem.curve(x, seed) for seed in range(400)])
    assert curves.shape == (400, problem.epochs, problem.objectives)
    error = curves[:, -1].std(0) / 20
    np.testing.assert_array_less(np.abs(curves[:, -1].mean(0) - problem.final(x)), 4 * error)
    assert (curves.mean(0)[0] > curves.mean(0)[-1]).all()  # it learns
    np.testing.assert_array_equal(problem.curve(x, 7), problem.curve(x, 7))


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_the_ideal_bounds_the_truth_and_the_reference_leaves_room(problem):
    values = np.array([problem.final(draw(problem, seed)) for seed in range(500)])
    assert (values >= np.array(problem.ideal) - 1e-9).all()
    assert (values < problem.reference).all(1).any()


def test_the_surrogate_is_of_the_committed_design_and_says_how_good_it_is():
    problem = search_design.problem()
    assert len(problem.curves) >= 60 and problem.epochs == 6 and len(problem.space) <= 6
    quality = problem.quality()
    assert {"acc", "max_gap", "acc_slope", "max_gap_slope"} == quality.keys()
    assert quality["acc"][-1] > 0.3  # what lr and lambda do to accuracy can be learnt
    x = draw(problem)
    curves = np.array([problem.curve(x, seed) for seed in range(300)])
    spread = np.abs(curves[:, -1] - problem.final(x)).mean(0)
    assert (spread < 0.1).all() and (spread > 0.005).all()
    assert search_design.FILE.stat().st_size < 2e6


@pytest.mark.parametrize("name", search_ours.CONTENDERS)
def test_every_contender_spends_the_same_budget(name, monkeypatch):
    problem = PROBLEMS["fonseca"]
    monkeypatch.setattr(search_ours, "TRIALS", 6)
    monkeypatch.setattr(search_ours.ours, "__kwdefaults__", {"trials": 6})
    ended = search_ours.CONTENDERS[name](problem, 0)
    assert 1 <= len(ended) <= 6 and ended[-1][0] <= 6 * problem.epochs
    spent = [one for one, _ in ended]
    assert spent == sorted(spent)
    if name != "ERM-GAP, stopping":
        assert spent == [problem.epochs * (k + 1) for k in range(6)]


def test_ours_on_a_problem_with_choices_leaves_the_space_as_it_was():
    from sweeps.search import space

    before = dict(space.SPACE.items())
    search_ours.ours(search_design.problem(), 0, trials=2)
    assert dict(space.SPACE.items()) == before


def test_steps_are_moocores_hypervolume_where_it_grows():
    problem, rng = PROBLEMS["zdt1"], np.random.default_rng(0)
    ended = [(9 * (k + 1), rng.random(2) * (1.2, 6.5)) for k in range(30)]
    steps = figures_search.steps(problem, ended)
    volumes = [volume for _, volume in steps]
    assert volumes == sorted(set(volumes))
    inside = np.array([v for _, v in ended if (v < problem.reference).all()])
    whole = moocore.hypervolume(inside, ref=problem.reference) / (1.1 * 6.0)
    assert volumes[-1] == pytest.approx(whole, abs=1e-5)


def test_the_summary_counts_seeds_that_never_reach_the_level():
    def row(contender, seed, steps):
        return {"problem": "p", "contender": contender, "seed": seed, "steps": steps}

    rows = [row("random", s, [[20, 0.3], [40, 0.5 + 0.001 * s]]) for s in range(5)]
    rows += [row("ERM-GAP", s, [[10, 0.6]]) for s in range(5)]
    rows += [row("bad", s, [[10, 0.1]]) for s in range(5)]
    found = search_report.summary(rows)
    assert found["level"] == pytest.approx(0.502)
    told = found["contenders"]
    assert told["ERM-GAP"]["until"] == [10, 10, 10] and told["ERM-GAP"]["speedup"] == [4, 4, 4]
    assert told["bad"]["until"][0] is None and told["bad"]["share"] == 0
    assert told["random"]["share"] == 0.6 and told["bad"]["ahead"][0] == pytest.approx(0.5)


def test_the_picture_is_drawn_from_few_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(search_report, "RESULTS", tmp_path)
    rows = [{"problem": p, "contender": c, "seed": s, "steps": [[5, 0.2], [20, 0.3 + 0.01 * s]]}
            for p in ("a", "b") for c in ("random", "ERM-GAP", "EHVI") for s in (0, 1)]  # fmt: skip
    search_report.write(rows)
    (picture,) = tmp_path.glob("*.png")
    (table,) = tmp_path.glob("*.json")
    assert picture.stat().st_size > 20_000 and "speedup" in table.read_text()
