"""Fronts by loss: who is in which, fair counts, errors over speakers, and the picture."""

from __future__ import annotations

import itertools

import moocore
import numpy as np
import pytest
from fake_sweep import write

from analysis import report
from analysis.figures import family_picture, figures, layout
from analysis.front import front
from analysis.statistics import families
from ermgap.errors import UserError

TRIALS = [
    {"acc": 0.66, "max_gap": 0.14, "loss": "erm"},
    {"acc": 0.60, "max_gap": 0.12, "loss": "erm"},
    {"acc": 0.64, "max_gap": 0.06, "loss": "minmaxgap"},
    {"acc": 0.55, "max_gap": 0.03, "loss": "minmaxgap"},
    {"acc": 0.54, "max_gap": 0.05, "loss": "minmaxgap"},
    {"acc": 0.60, "max_gap": 0.02, "loss": "groupdro"},
    {"acc": 0.16, "max_gap": 0.0, "loss": "reweight"},
    {"acc": 0.70, "max_gap": 0.01, "loss": "vrex", "status": "running"},
]


def read(tmp_path, trials=TRIALS, **options):
    records = write(tmp_path / "sweep", trials, **options)
    info = front.info(records)
    return info, families.families(info, records)


def test_each_loss_has_its_own_front_of_usable_trials_alone(tmp_path):
    _, groups = read(tmp_path)
    # reweight's only trial says always the same and vrex's is not finished: neither is a family.
    assert [family.loss for family in groups] == ["erm", "minmaxgap", "groupdro"]
    ids = [{point.trial_id for point in family.front} for family in groups]
    assert ids == [{"t0000", "t0001"}, {"t0002", "t0003"}, {"t0005"}]


def test_hypervolumes_are_those_of_moocore(tmp_path):
    info, groups = read(tmp_path)
    for family in groups:
        values = [[p.values[name] for name in info.objectives] for p in family.points]
        whole = moocore.hypervolume(
            values, ref=info.reference, maximise=[d == "max" for d in info.directions]
        )
        ideal = [1.0 if d == "max" else 0.0 for d in info.directions]
        scale = np.prod(np.abs(np.subtract(ideal, info.reference)))
        assert family.hypervolume == pytest.approx(whole / scale, abs=1e-12)


def test_the_figure_for_equal_counts_is_the_mean_over_all_choices(tmp_path):
    info, groups = read(tmp_path)
    trio = groups[1]
    assert trio.n_even == 1  # as many as GroupDRO has
    singles = [
        front.hypervolume(
            [[p.values[name] for name in info.objectives]],
            reference=info.reference,
            directions=info.directions,
        )
        for p in trio.points
    ]
    spread = np.std(singles) / np.sqrt(families.RESAMPLES)
    assert abs(trio.even - np.mean(singles)) < 4 * spread
    assert groups[2].even == pytest.approx(groups[2].hypervolume)
    assert trio.even < trio.hypervolume


def test_points_outside_all_other_fronts_are_counted(tmp_path):
    info, groups = read(tmp_path)
    erm, minmaxgap, groupdro = groups
    assert families.outside(erm, [minmaxgap, groupdro], info) == 1  # 0.60 is beaten twice
    assert families.outside(minmaxgap, [erm, groupdro], info) == 1  # 0.55, 0.03 by GroupDRO
    assert families.outside(groupdro, [erm, minmaxgap], info) == 1
    for family, other in itertools.permutations(groups, 2):
        alone = families.outside(family, [other], info)
        assert alone >= families.outside(family, [f for f in groups if f is not family], info)


def test_errors_pair_the_same_resamples_of_speakers(tmp_path):
    info, groups = read(tmp_path)
    again = families.families(info, write(tmp_path / "again", TRIALS))
    for family, other in zip(groups, again, strict=True):
        np.testing.assert_array_equal(family.drawn, other.drawn)
        assert 0 < family.se < 0.2
    # A family against itself differs by nothing, whatever the resample.
    twice = [{**trial, "loss": loss} for loss in ("erm", "vrex") for trial in TRIALS[:1]]
    text = families.sentences(read(tmp_path / "twice", twice, with_predictions=False)[1], info)
    assert "±" not in text[0] and "+0.000 against V-REx" in text[0]


def test_the_report_draws_and_names_them_only_where_there_are_two(tmp_path, capsys):
    write(tmp_path / "sweep", TRIALS)
    folder = report.write(tmp_path / "sweep", tmp_path / "plots")
    assert (folder / "families.png").stat().st_size > 20_000
    assert "Fronts by loss" in (folder / "report.html").read_text()
    assert "MinMaxGAP: 3 trials, hypervolume" in capsys.readouterr().out

    write(tmp_path / "alone", TRIALS[:2])
    folder = report.write(tmp_path / "alone", tmp_path / "plots")
    assert not (folder / "families.png").exists()
    assert "Fronts by loss" not in (folder / "report.html").read_text()
    assert "the best of the others" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "objectives",
    [["acc", "max_gap"], ["max_gap", "acc"], ["acc", "w_f1"], ["w_f1", "max_gap", "acc"]],
)
def test_a_staircase_passes_through_every_point_and_covers_nothing_unreached(tmp_path, objectives):
    reference = dict.fromkeys(objectives, 0.1) | {"max_gap": 0.3}
    directions = {name: "min" if name == "max_gap" else "max" for name in objectives}
    info, groups = read(
        tmp_path, objectives=objectives, reference_point=reference, directions=directions
    )
    for family in groups:
        line = layout.stairs(family.front, layout.plane(info))
        signs = np.array([1 if directions[name] == "max" else -1 for name in layout.plane(info)])
        values = layout.places(family.front, layout.plane(info))
        for corner in line:  # every corner is beaten or equalled by a point of the front
            assert ((values - corner) * signs >= -1e-9).all(1).any()
        for point in values:  # and every point that no other beats is a corner
            beaten = ((values - point) * signs >= 0).all(1) & ((values - point) * signs > 0).any(1)
            assert beaten.any() or np.isclose(line, point).all(1).any()
    figures.save(family_picture.draw(groups, info), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000


def test_a_sweep_without_usable_trials_has_no_family(tmp_path):
    records = write(tmp_path / "sweep", [{"acc": 0.16, "max_gap": 0.0}])
    assert families.families(front.info(records), records) == []
    with pytest.raises(UserError):
        report.write(tmp_path / "nothing", tmp_path / "plots")
