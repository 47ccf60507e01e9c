"""Attainment surfaces against their definition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_sweep import THREE, many, write

from analysis import report
from analysis.figures import attainment, figures
from analysis.front import front


@pytest.mark.parametrize("directions", [("max", "min"), ("min", "min"), ("max", "max")])
def test_a_surface_parts_what_enough_sets_attain_from_the_rest(directions):
    rng = np.random.default_rng(0)
    values = rng.random((40, 12, 2))
    values[3, 2] = np.nan
    values[[7, 21, 22]] = np.nan  # sets that attain nothing
    surfaces = attainment.surfaces(values, directions)
    signs = np.array([-1.0 if direction == "max" else 1.0 for direction in directions])
    costs = values * signs
    for place in rng.random((300, 2)) * signs:
        share = 100 * (costs <= place).all(-1).any(1).mean()
        for level, surface in surfaces.items():
            reached = (surface * signs <= place).all(1).any()
            assert reached == (share >= level - 1e-9), (level, share)


def test_fewer_resamples_attain_what_is_better(tmp_path):
    records = write(tmp_path / "sweep", many(0))
    info = front.info(records)
    attained = attainment.over_speakers(info, records)
    volumes = [
        front.hypervolume(attained.surfaces[level], reference=info.reference,
                          directions=info.directions)
        for level in (25, 50, 75)
    ]  # fmt: skip
    assert volumes == sorted(volumes, reverse=True) and volumes[-1] > 0
    figures.save(attainment.draw(attained, info), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_without_predictions_or_with_other_objectives_there_is_none(tmp_path):
    bare = write(tmp_path / "bare", THREE, with_predictions=False)
    assert attainment.over_speakers(front.info(bare), bare) is None
    names = ["acc", "max_loss_gap"]
    other = write(tmp_path / "other", THREE, objectives=names,
                  directions={"acc": "max", "max_loss_gap": "min"},
                  reference_point=dict.fromkeys(names, 0.3))  # fmt: skip
    assert attainment.over_speakers(front.info(other), other) is None
    folder = report.write(bare.directory, tmp_path / "plots", quiet=True)
    assert not (folder / "attainment.png").exists()


def test_over_seeds_a_surface_is_a_count_of_seeds(tmp_path):
    records = write(tmp_path / "sweep", THREE, with_predictions=False)
    rows = [
        {"trial_id": "t0001", "seed": seed, "split": "test", "status": "finished",
         "acc": 0.5 + seed / 100, "max_gap": 0.2 - seed / 100, "w_f1": 0.5,
         "worst_group_w_f1": 0.4, "max_loss_gap": 0.1}
        for seed in range(4)
    ]  # fmt: skip
    rows.append(rows[0] | {"seed": 9, "status": "degenerate", "acc": 0.9, "max_gap": 0.0})
    rows.append(rows[0] | {"seed": 0, "split": "dev", "acc": 0.9, "max_gap": 0.0})
    attained = attainment.over_seeds(front.info(records), pd.DataFrame(rows))
    assert attained.sets == 5  # the degenerate one attains nothing
    for level, seed in ((25, 2), (50, 1), (75, 0)):  # the second best of five, the third, the last
        np.testing.assert_allclose(attained.surfaces[level], [[0.5 + seed / 100, 0.2 - seed / 100]])
    assert attainment.over_seeds(front.info(records), pd.DataFrame(rows[:1])) is None
    assert attainment.over_seeds(front.info(records), None) is None


def test_seeds_in_which_nothing_is_usable_count_as_sets_that_attain_nothing(tmp_path):
    info = front.info(write(tmp_path / "sweep", THREE, with_predictions=False))
    lost = {"w_f1": 0.5, "worst_group_w_f1": 0.4, "max_loss_gap": 0.1, "split": "test"}
    ends = ["finished", "failed", "degenerate", "finished", "failed", "degenerate"]
    rows = [lost | {"trial_id": "t0001", "seed": seed, "status": end, "acc": 0.5, "max_gap": 0.1}
            for seed, end in enumerate(ends)]  # fmt: skip
    attained = attainment.over_seeds(info, pd.DataFrame(rows))
    assert attained.sets == 6 and "In 4 of 6 seeds no run is usable" in attained.warning
    assert {level: len(at) for level, at in attained.surfaces.items()} == {25: 1, 50: 0, 75: 0}
    figures.save(attainment.draw(attained, info), tmp_path / "one.png")
    few = attainment.over_seeds(info, pd.DataFrame([*rows[:3], *rows[4:]]))  # one of five
    assert few.sets == 5 and not any(len(at) for at in few.surfaces.values())
    figures.save(attainment.draw(few, info), tmp_path / "none.png")
    assert attainment.over_seeds(info, pd.DataFrame(rows[1:3])) is None
