"""What a report says of its points beyond their values."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fake_sweep import LABELS, predictions, utterances, write

from analysis import report
from analysis.figures import layout
from analysis.front import choose, front
from analysis.statistics import evidence
from ermgap.records import Records

TRIALS = [
    {"acc": 0.62, "max_gap": 0.24, "loss": "erm"},
    {"acc": 0.60, "max_gap": 0.08},
    {"acc": 0.55, "max_gap": 0.05},
]


def sweep(tmp_path, *, handicaps=(0.5, 0.0, 0.0), speakers: int = 6, rights=(0.7, 0.68, 0.6)):
    """A sweep whose predictions have the wanted gap of German women; ERM's is t0000."""
    records = write(tmp_path / "sweep", TRIALS)
    table = utterances(n=1800, speakers=speakers, seed=1)
    for i, (right, handicap) in enumerate(zip(rights, handicaps, strict=True)):
        made = predictions(table, right=right, handicap=handicap, seed=5 + i)
        for label in LABELS:
            made[f"logp_{label}"] = -1.0
        made.to_parquet(records.storage / "predictions" / f"t{i:04d}.parquet")
    info = front.info(records)
    return info, records, evidence.collect(info, records)


def test_a_real_gap_is_told_from_chance_and_its_fall_from_erm_s(tmp_path):
    info, _, found = sweep(tmp_path)
    assert set(found) == {"t0000", "t0001", "t0002"} and not found.missing
    assert found["t0000"].is_gap and found["t0000"].change is None
    rates = found["t0000"].accuracies
    assert found["t0000"].cell == "de/speech" and rates["female"] < rates["male"] - 0.3
    for name in ("t0001", "t0002"):
        assert found[name].fell and found[name].change["max_gap"].below > 0.97
        assert not found[name].is_gap
    said = evidence.sentence(info, found)
    assert "1 of the front's 3 points show more than that" in said
    assert "of 2 compared with ERM 2 surely lowered its gap" in said


def test_without_a_true_difference_nothing_is_sure(tmp_path):
    info, _, found = sweep(tmp_path, handicaps=(0.0, 0.0, 0.0))
    assert not any(one.fell or one.is_gap for one in found.values())
    assert "none of the front's 3 points show more than that" in evidence.sentence(info, found)


def test_rules_by_the_bound_and_by_fair_models(tmp_path):
    info, _, found = sweep(tmp_path, speakers=20)
    assert choose.RULES["gap within 95 % of fair models'"](info, found).trial_id == "t0001"
    bound = choose.gap_surely_at_most(info, found, max_gap=0.15)
    fine = [p.trial_id for p in info.front if found[p.trial_id].gap.at_most <= 0.15]
    assert bound.trial_id == (fine[0] if fine else None)
    none = choose.gap_surely_at_most(info, found, max_gap=0.001)
    assert none.trial_id is None and none.nearest in {p.trial_id for p in info.front}
    assert "the least violating is" in none.sentence
    assert "unknown without predictions" in choose.RULES["gap surely at most 10"](info).sentence


def test_the_fairest_near_erm(tmp_path):
    info, _, found = sweep(tmp_path)
    assert choose.near_erm(info, loss=0.01).trial_id == "t0000"
    assert choose.RULES["fairest within 2 of ERM"](info, found).trial_id == "t0001"
    assert choose.near_erm(info, loss=0.05).trial_id == "t0001"


def test_levelling_down_is_said(tmp_path):
    info, records, found = sweep(tmp_path)
    points = {p.trial_id: p for p in info.points}
    for name in ("t0001", "t0002"):
        lower = points[name].values["worst_group_w_f1"] < info.erm.values["worst_group_w_f1"]
        assert evidence.levelled(info, points[name]) == lower
    assert not evidence.levelled(info, info.erm)


def test_predictions_of_other_utterances_are_left_out_and_named(tmp_path):
    info, records, _ = sweep(tmp_path)
    path = records.storage / "predictions" / "t0002.parquet"
    pd.read_parquet(path).iloc[5:].to_parquet(path)
    (records.storage / "predictions" / "t0001.parquet").unlink()
    found = evidence.collect(info, records)
    assert set(found) == {"t0000"}
    assert "not of the same utterances" in found.missing["t0002"]
    assert "absent" in found.missing["t0001"]


def test_one_speaker_a_gender_says_that_nothing_can_be_told(tmp_path):
    info, records, found = sweep(tmp_path, speakers=1)
    assert np.isnan(found["t0000"].gap.at_most) and np.isnan(found["t0000"].band.high)
    assert "is unknown" in evidence.sentence(info, found)
    assert len(layout.picture(info, None, found).band) == 0


def test_one_lone_gender_leaves_the_band_and_takes_the_comparison_with_erm(tmp_path):
    """Fair worlds draw its one effect with the variance of the others; a bound is not known."""
    info, records, _ = sweep(tmp_path)
    for path in (records.storage / "predictions").glob("t*.parquet"):
        table = pd.read_parquet(path)
        is_lone = (table["language"] == "ja") & (table["gender"] == "male")
        table.assign(speaker=table["speaker"].mask(is_lone, "alone")).to_parquet(path)
    found = evidence.collect(info, records)
    assert all(np.isfinite(one.band.high) and np.isnan(one.gap.at_most) for one in found.values())
    assert not any(one.fell for one in found.values())
    said = evidence.sentence(info, found)
    assert "show more than that" in said and "lowered ERM's gap is unknown" in said


def test_summary_page_and_picture_hold_it(tmp_path):
    _, records, _ = sweep(tmp_path)
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    told = json.loads((records.directory / "summary.json").read_text())
    assert set(told["evidence"]["points"]) == {"t0000", "t0001", "t0002"}
    assert told["evidence"]["points"]["t0001"]["change"]["max_gap"]["high"] < 0
    assert told["choices"]["knee"]["rule"] == "knee"
    page = (folder / "report.html").read_text()
    assert "fair models" in page and "female/male" in page
    info = front.info(Records.open(records.directory))
    picture = layout.picture(info, None, evidence.collect(info, records))
    assert picture.band.shape == (20, 2) and (picture.band[:, 0] > 0).all()
    assert any("perfectly fair models" in line for line in picture.caption)


@pytest.mark.parametrize("present", [[], ["t0000"]])
def test_few_or_no_predictions_still_give_a_report(tmp_path, present):
    _, records, _ = sweep(tmp_path)
    for path in (records.storage / "predictions").glob("t*.parquet"):
        if path.stem not in present:
            path.unlink()
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    assert (folder / "report.html").exists()
