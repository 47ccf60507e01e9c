"""Three objectives are drawn in the plane of each pair."""

from __future__ import annotations

from fake_sweep import many, write

from analysis import report
from analysis.figures import pairs
from analysis.front import front

NAMES = ["acc", "max_gap", "worst_group_w_f1"]


def sweep(tmp_path):
    trials = [
        trial | {"worst_group_w_f1": 0.9 - trial["acc"] / 2 + trial["max_gap"] / 3}
        for trial in many(3, 20)
    ]
    return write(
        tmp_path / "sweep", trials, objectives=NAMES,
        directions={"acc": "max", "max_gap": "min", "worst_group_w_f1": "max"},
        reference_point={"acc": 0.15, "max_gap": 0.3, "worst_group_w_f1": 0.0},
    )  # fmt: skip


def test_each_pair_has_a_plane_and_keeps_the_front_of_all_three(tmp_path):
    info = front.info(sweep(tmp_path))
    planes = pairs.planes(info)
    assert [set(plane.objectives) for plane in planes] == [
        {"acc", "max_gap"}, {"acc", "worst_group_w_f1"}, {"max_gap", "worst_group_w_f1"},
    ]  # fmt: skip
    on_front = {point.trial_id for point in info.front}
    assert all({point.trial_id for point in plane.front} == on_front for plane in planes)
    assert dict(zip(planes[1].objectives, planes[1].directions, strict=True)) == {
        "acc": "max", "worst_group_w_f1": "max",
    }  # fmt: skip


def test_the_report_of_three_objectives_shows_every_pair(tmp_path):
    folder = report.write(sweep(tmp_path).directory, tmp_path / "plots", quiet=True)
    assert (folder / "pairs.png").stat().st_size > 20_000
    assert "Three objectives" in (folder / "report.html").read_text(encoding="utf-8")
