"""The front, its hypervolume and the choices made on it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from fake_sweep import write

from analysis.front import choose, front
from analysis.front.front import hypervolume, non_dominated
from analysis.page import sentences
from ermgap.errors import UserError

NAN = float("nan")
ERM = {"acc": 0.60, "max_gap": 0.15, "loss": "erm"}


def info_of(tmp_path, trials, **sweep):
    records = write(tmp_path / "sweep", trials, with_predictions=False, **sweep)
    return front.info(records)


def beats(a, b, directions) -> bool:
    """Pareto dominance as in a textbook, one pair at a time."""
    no_worse = all(
        x >= y if d == "max" else x <= y for x, y, d in zip(a, b, directions, strict=True)
    )
    return no_worse and any(x != y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("directions", list(itertools.product(["max", "min"], repeat=2)) + [
    ("max", "min", "max"), ("min", "min", "min"), ("max", "max", "min"),
])  # fmt: skip
def test_non_dominated_points_are_those_that_nobody_beats(directions):
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        values = rng.integers(0, 6, (n, len(directions))) / 5  # many ties and duplicates
        expected = [not any(beats(b, a, directions) for b in values) for a in values]
        assert non_dominated(values, directions=directions).tolist() == expected


def test_a_point_that_is_not_a_number_neither_is_kept_nor_removes_another():
    values = [[0.5, 0.1], [NAN, 0.0], [0.9, NAN], [0.5, 0.1]]
    kept = non_dominated(values, directions=("max", "min"))
    assert kept.tolist() == [True, False, False, True]
    assert non_dominated([], directions=("max", "min")).tolist() == []


def test_hypervolume_of_two_objectives_is_the_sum_of_its_strips():
    points = [[0.5, 0.1], [0.7, 0.2], [0.6, 0.25], [0.1, 0.0], [0.9, 0.4]]
    # Only the first two count: one is dominated, two are outside the reference (0.15, 0.30).
    strips = (0.5 - 0.15) * (0.3 - 0.1) + (0.7 - 0.5) * (0.3 - 0.2)
    volume = hypervolume(points, reference=(0.15, 0.3), directions=("max", "min"))
    assert volume == pytest.approx(strips / (0.85 * 0.3))


@pytest.mark.parametrize("directions", [("max", "min", "max"), ("min", "max", "min")])
def test_hypervolume_of_three_objectives_is_the_share_of_random_places_that_are_dominated(
    directions,
):
    rng = np.random.default_rng(1)
    points = rng.random((12, 3))
    reference = [0.1 if d == "max" else 0.9 for d in directions]
    ideal = [1.0 if d == "max" else 0.0 for d in directions]
    places = rng.uniform(np.minimum(reference, ideal), np.maximum(reference, ideal), (40_000, 3))
    signs = np.array([1 if d == "max" else -1 for d in directions])
    covered = ((points[None] * signs) >= (places[:, None] * signs)).all(-1).any(1).mean()
    volume = hypervolume(points, reference=reference, directions=directions)
    assert volume == pytest.approx(covered, abs=0.01)


def test_hypervolume_is_one_at_the_ideal_zero_without_points_and_grows_with_every_gain():
    rule = {"reference": (0.15, 0.3), "directions": ("max", "min")}
    assert hypervolume([[1.0, 0.0]], **rule) == pytest.approx(1.0)
    assert hypervolume([], **rule) == 0.0
    assert hypervolume([[0.15, 0.1], [0.9, 0.3]], **rule) == 0.0
    single = hypervolume([[0.5, 0.1]], **rule)
    assert hypervolume([[0.5, 0.1], [0.5, 0.1], [0.4, 0.2]], **rule) == pytest.approx(single)
    assert hypervolume([[0.5, 0.1], [0.6, 0.2]], **rule) > single
    assert np.isnan(hypervolume([[0.5, 0.1]], reference=(NAN, 0.3), directions=("max", "min")))


def test_only_finished_points_that_say_something_are_on_the_front(tmp_path):
    trials = [
        ERM,
        {"acc": 0.55, "max_gap": 0.05},
        {"acc": 0.54, "max_gap": 0.06},  # dominated
        {"acc": 0.16, "max_gap": 0.0},  # not above the majority rate
        {"acc": 0.40, "max_gap": 0.01, "w_f1": 0.2},  # under half of ERM's W-F1
        {"acc": 0.90, "max_gap": 0.01, "status": "running"},
        {"acc": 0.91, "max_gap": 0.01, "status": "stopped"},
        {"acc": NAN, "max_gap": NAN, "status": "failed", "reason": "non-finite loss"},
        {"acc": 0.80, "max_gap": NAN},  # no cell with a defined gap
    ]
    info = info_of(tmp_path, trials)
    kinds = [point.kind for point in info.points]
    assert kinds == [
        "front", "front", "dominated", "degenerate", "degenerate",
        "running", "stopped", "failed", "undefined",
    ]  # fmt: skip
    assert [point.trial_id for point in info.front] == ["t0000", "t0001"]
    assert info.complete == 6
    alone = hypervolume(
        [[0.60, 0.15], [0.55, 0.05]], reference=(0.15, 0.3), directions=("max", "min")
    )
    assert info.hypervolume == pytest.approx(alone)


def test_the_floor_is_recomputed_from_the_best_finished_erm_unless_it_is_given(tmp_path):
    trials = [
        {"acc": 0.5, "max_gap": 0.1, "loss": "erm", "w_f1": 0.44},
        {"acc": 0.5, "max_gap": 0.1, "loss": "erm", "w_f1": 0.60},
        {"acc": 0.9, "max_gap": 0.1, "loss": "erm", "w_f1": 0.90, "status": "running"},
        # Recorded as degenerate under an older floor; today it is not.
        {"acc": 0.4, "max_gap": 0.05, "w_f1": 0.31, "status": "degenerate"},
    ]
    info = info_of(tmp_path / "a", trials)
    assert info.floor == pytest.approx(0.30)
    assert info.points[3].on_front
    given = info_of(tmp_path / "b", trials, floor=0.35)
    assert given.floor == 0.35
    assert given.points[3].kind == "degenerate"
    assert info_of(tmp_path / "c", trials[3:]).floor is None


def test_equal_points_share_the_front_and_erm_is_known_by_its_loss(tmp_path):
    info = info_of(tmp_path, [ERM, {**ERM, "loss": "minmaxgap"}, {"acc": 0.5, "max_gap": 0.2}])
    assert [point.trial_id for point in info.front] == ["t0000", "t0001"]
    assert info.erm.trial_id == "t0000"
    assert [point.is_erm for point in info.points] == [True, False, False]


def test_three_objectives_and_any_directions_make_a_front(tmp_path):
    trials = [
        {"acc": 0.6, "max_gap": 0.15, "worst_group_w_f1": 0.3},
        {"acc": 0.5, "max_gap": 0.20, "worst_group_w_f1": 0.4},
        {"acc": 0.5, "max_gap": 0.20, "worst_group_w_f1": 0.2},
    ]
    info = info_of(
        tmp_path,
        trials,
        objectives=["worst_group_w_f1", "max_gap", "acc"],
        directions={"acc": "max", "max_gap": "min", "worst_group_w_f1": "max"},
        reference_point={"acc": 0.15, "max_gap": 0.3, "worst_group_w_f1": 0.0},
    )
    assert [point.trial_id for point in info.front] == ["t0001", "t0000"]
    assert 0 < info.hypervolume < 1


def test_a_sweep_without_its_reference_point_is_refused_by_key(tmp_path):
    records = write(tmp_path / "sweep", [ERM], with_predictions=False)
    records.sweep.pop("reference_point")
    with pytest.raises(UserError, match="sweep.yaml has no 'reference_point'"):
        front.info(records)


def test_the_knee_is_the_point_furthest_from_the_chord_and_is_free_of_scale(tmp_path):
    trials = [
        {"acc": 0.70, "max_gap": 0.20},
        {"acc": 0.68, "max_gap": 0.08},
        {"acc": 0.60, "max_gap": 0.05},
        {"acc": 0.50, "max_gap": 0.04},
    ]
    info = info_of(tmp_path, trials)
    ends = np.array([[0.70, 0.20], [0.50, 0.04]])
    unit = (np.array([[t["acc"], t["max_gap"]] for t in trials]) - ends[1]) / (ends[0] - ends[1])
    distances = (unit[:, 0] - unit[:, 1]) / np.sqrt(2)  # to the line y = x between (0,0) and (1,1)
    expected = f"t{int(np.argmax(distances)):04d}"
    assert choose.knee(info).trial_id == expected == "t0001"
    squeezed = [
        replace(p, values={**p.values, "max_gap": p.values["max_gap"] / 50}) for p in info.points
    ]
    assert choose.knee(replace(info, points=tuple(squeezed))).trial_id == expected


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [{"acc": 0.7, "max_gap": 0.2}, {"acc": 0.5, "max_gap": 0.1}],
        [{"acc": 0.7, "max_gap": 0.2}, {"acc": 0.5, "max_gap": 0.1}, {"acc": 0.5, "max_gap": 0.1}],
        [
            {"acc": 0.7, "max_gap": 0.2},
            {"acc": 0.52, "max_gap": 0.18},
            {"acc": 0.5, "max_gap": 0.1},
        ],
    ],
    ids=["empty", "two points", "two distinct points", "below the chord"],
)
def test_a_front_without_a_knee_says_so(tmp_path, trials):
    choice = choose.knee(info_of(tmp_path, trials))
    assert choice.trial_id is None
    assert choice.sentence.startswith("There is no knee")


def test_gap_at_most_takes_the_most_accurate_that_qualifies(tmp_path):
    trials = [
        {"acc": 0.70, "max_gap": 0.20},
        {"acc": 0.60, "max_gap": 0.10},
        {"acc": 0.60, "max_gap": 0.08},
        {"acc": 0.99, "max_gap": 0.01, "status": "running"},
        {"acc": 0.10, "max_gap": 0.00},
    ]
    info = info_of(tmp_path, trials)
    assert choose.gap_at_most(info, max_gap=0.25).trial_id == "t0000"
    assert choose.gap_at_most(info, max_gap=0.10).trial_id == "t0002"
    none = choose.gap_at_most(info, max_gap=0.05)
    assert none.trial_id is None and none.nearest == "t0002"
    assert "No configuration has a gap of at most 5 points" in none.sentence
    assert "the least violating is t0002" in none.sentence
    assert choose.gap_at_most(replace(info, points=()), max_gap=0.05).trial_id is None


def test_every_rule_chooses_a_usable_point_or_none(tmp_path):
    rng = np.random.default_rng(3)
    for number in range(8):
        trials = [
            {"acc": a, "max_gap": g, "status": s}
            for a, g, s in zip(
                rng.uniform(0.1, 0.9, 12),
                rng.uniform(0, 0.4, 12),
                rng.choice(["finished", "running", "stopped"], 12),
                strict=True,
            )
        ]
        info = info_of(tmp_path / str(number), trials)
        for name, rule in choose.RULES.items():
            choice = rule(info)
            assert choice.rule == name and choice.sentence.endswith(".")
            if choice.trial_id is not None:
                assert info.find(choice.trial_id).eligible


def test_the_best_worst_group_is_on_the_front_and_need_not_be_the_fairest(tmp_path):
    trials = [
        {"acc": 0.70, "max_gap": 0.20, "worst_group_w_f1": 0.5},
        {"acc": 0.60, "max_gap": 0.10, "worst_group_w_f1": 0.3},
        {"acc": 0.55, "max_gap": 0.15, "worst_group_w_f1": 0.9},
    ]
    info = info_of(tmp_path, trials)
    choice = choose.RULES["best worst group"](info)
    assert choice.trial_id == "t0000" and "W-F1 50.0 %" in choice.sentence
    assert choose.RULES["fairest"](info).trial_id == "t0001"
    assert choose.RULES["best worst group"](replace(info, points=())).trial_id is None


def test_there_are_at_most_eight_rules_and_a_terminal_shows_some_of_them():
    assert len(choose.RULES) <= 8 and set(choose.BRIEF) < set(choose.RULES)


def test_without_an_accuracy_among_the_objectives_nothing_is_called_most_accurate(tmp_path):
    info = info_of(
        tmp_path,
        [ERM],
        objectives=["max_gap", "max_loss_gap"],
        directions={"max_gap": "min", "max_loss_gap": "min"},
        reference_point={"max_gap": 0.3, "max_loss_gap": 1.0},
    )
    assert choose.RULES["most accurate"](info).trial_id is None
    assert choose.RULES["fairest"](info).trial_id == "t0000"


def test_points_whose_training_pushed_losses_up_are_named_with_the_share(tmp_path):
    records = write(
        tmp_path / "sweep",
        [
            {"acc": 0.6, "max_gap": 0.2, "loss": "erm"},
            {"acc": 0.55, "max_gap": 0.1, "raised_share": 0.125},
            {"acc": 0.5, "max_gap": 0.05, "raised_share": 1e-6},
            {"acc": 0.3, "max_gap": 0.3, "raised_share": 0.4},  # dominated: nobody would choose it
        ],
    )
    info = front.info(records)
    (line,) = sentences.pushed_up(info)
    assert "t0001 (12.5 %), t0002 (0.1 %)" in line and "t0003" not in line
    assert "t0000" not in line and "objective.sides=worse" in line
    fair = write(tmp_path / "fair", [{"acc": 0.6, "max_gap": 0.2}])
    assert sentences.pushed_up(front.info(fair)) == []
