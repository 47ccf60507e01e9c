"""Inequality of speakers: its measures against formulas, and what is said without speakers."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fake_sweep import THREE, balanced, predictions, write

from analysis import report
from analysis.front import front
from analysis.tables import by_speaker


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_their_formulas(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    accuracy, chance = rng.random(n), rng.random(n) * 0.01
    found = by_speaker.measures(accuracy, chance)
    pairs = np.abs(accuracy[:, None] - accuracy).mean()
    assert found["gini"] == pytest.approx(pairs / (2 * accuracy.mean()))
    assert found["sd"] == pytest.approx(np.std(accuracy, ddof=1))
    spread = max(np.var(accuracy, ddof=1) - chance.mean(), 0) ** 0.5
    assert found["spread"] == pytest.approx(spread)
    assert found["worst_tenth"] == pytest.approx(np.sort(accuracy)[: max(n // 10, 1)].mean())
    many = by_speaker.measures(np.stack([accuracy, accuracy]), np.stack([chance, chance]))
    assert all(np.allclose(many[name], found[name]) for name in found)


def test_equal_speakers_have_no_inequality_and_none_divides_by_nothing():
    for value in (0.0, 0.5):
        found = by_speaker.measures(np.full(7, value), np.zeros(7))
        assert found["gini"] == found["sd"] == found["spread"] == 0
        assert found["worst_tenth"] == value


@pytest.mark.parametrize("sd", [0.0, 0.1])
def test_the_spread_is_that_of_speakers_without_that_of_utterances(sd):
    rng = np.random.default_rng(1)
    truth = rng.normal(0.6, sd, (400, 60)).clip(0, 1)
    hits = rng.binomial(30, truth) / 30
    found = by_speaker.measures(hits, hits * (1 - hits) / 29)
    assert np.mean(found["sd"]) > sd + 0.02 * (sd == 0)
    squares = hits.var(-1, ddof=1) - (hits * (1 - hits) / 29).mean(-1)
    assert np.mean(squares) == pytest.approx(np.mean(truth.var(-1, ddof=1)), abs=3e-4)


def told(tmp_path, change=lambda name, table: table, **options):
    records = write(tmp_path / "sweep", THREE)
    tables = {}
    for number in range(3):
        made = predictions(balanced(4), right=0.6, handicap=0.1, seed=number)
        tables[f"t{number:04d}"] = change(f"t{number:04d}", made)
    return by_speaker.table(front.info(records), tables, **{"least": 5} | options)


def test_changes_are_paired_and_of_as_many_speakers(tmp_path):
    table, note = told(tmp_path)
    assert table["speakers"].eq(24).all() and note.startswith("24 speakers with at least 5")
    erm, *others = table.to_dict("records")
    assert np.isnan(erm["gini_change"])
    for row in others:
        for name in by_speaker.MEASURES:
            assert row[f"{name}_change"] == pytest.approx(row[name] - erm[name])
            assert row[f"{name}_change_se"] > 0


def test_the_same_predictions_change_nothing_surely(tmp_path):
    same = predictions(balanced(4), right=0.6, handicap=0.1, seed=0)
    table, _ = told(tmp_path, lambda name, table: same)
    assert (table.filter(like="_change").dropna() == 0).all(axis=None)


def test_an_utterance_in_two_modalities_counts_once(tmp_path):
    once, _ = told(tmp_path / "once")
    twice, _ = told(
        tmp_path / "twice", lambda _, t: pd.concat([t, t.assign(modality="speech+text")])
    )
    pd.testing.assert_frame_equal(once, twice)


def test_speakers_of_few_utterances_are_counted_and_left_out(tmp_path):
    def fewer(_, table):
        few = table["speaker"] == table["speaker"].iloc[0]
        return table[~few | (few.cumsum() <= 3)]

    table, note = told(tmp_path, fewer)
    assert table["speakers"].eq(23).all() and "; 1 with fewer are left out" in note
    table, note = told(tmp_path / "none", least=1000)
    assert table.empty and note == "No two dev speakers have 1000 utterances each."


def test_other_utterances_are_not_compared(tmp_path):
    table, note = told(tmp_path, lambda name, t: t.iloc[1:] if name == "t0001" else t)
    assert table["trial_id"].tolist() == ["t0000", "t0002"]
    assert "Nothing is said of the speakers of t0001: the predictions are of other" in note


def test_a_report_of_predictions_without_speakers_is_written_and_says_so(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    for path in (records.storage / "predictions").glob("*.parquet"):
        pd.read_parquet(path).drop(columns="speaker").to_parquet(path)
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    said = "Nothing is said of the speakers of t0000, t0001, t0002: the predictions lack the"
    assert f"{said} column(s) speaker." in (folder / "report.html").read_text()
    assert not (folder / "speakers.csv").exists()
    summary = json.loads((records.directory / "summary.json").read_text())
    assert summary["by_speaker"]["points"] == [] and "lack" in summary["by_speaker"]["note"]


def test_the_files_have_the_same_numbers(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    folder = report.write(records.directory, tmp_path / "plots", quiet=True)
    table = pd.read_csv(folder / "speakers.csv")
    points = json.loads((records.directory / "summary.json").read_text())["by_speaker"]["points"]
    assert [p["trial_id"] for p in points] == table["trial_id"].tolist()
    assert [p["gini"] for p in points] == pytest.approx(table["gini"].tolist())
    assert f"{table['gini'].iloc[0]:.3f}" in (folder / "report.html").read_text()
