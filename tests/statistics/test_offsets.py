"""The baseline without training: one offset per emotion, fitted on half of the dev speakers."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import pytest
from fake_sweep import LABELS, THREE, balanced, write

from analysis import offsets, report
from analysis.front import front
from analysis.offsets import LabelScores
from analysis.statistics.units import units_of
from ermgap import metrics

COLUMNS = [f"logp_{label}" for label in LABELS]


def scored(speakers: int = 6, *, planted: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Predictions of a model that is surer of men; `planted` is taken off everybody's anger.

    Women's anger is then taken for something else, men's is not: a gap that an offset explains.
    """
    table, rng = balanced(speakers, each=35), np.random.default_rng(seed)
    sure = np.where(table["gender"] == "male", 7.0, 4.0) + rng.normal(0, 1, len(table))
    logits = rng.normal(0, 0.7, (len(table), len(LABELS)))
    logits[np.arange(len(table)), [LABELS.index(label) for label in table["label"]]] += sure
    logits[:, LABELS.index("anger")] -= planted
    table[COLUMNS] = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return table.assign(prediction=np.array(LABELS)[logits.argmax(1)])


def scores_of(table: pd.DataFrame) -> LabelScores:
    coded = metrics.encode(table, labels=LABELS)
    return LabelScores(
        table[COLUMNS].to_numpy(),
        3 * coded.cell + coded.side,
        coded.label,
        metrics.Compared.of(metrics.confusions(coded)[0], min_support=5),
    )


@pytest.mark.parametrize("seed", range(3))
def test_offsets_of_zero_are_the_model_itself(seed):
    table = scored(planted=2.0, seed=seed)
    scores, measured = scores_of(table), metrics.evaluate(table, labels=LABELS)
    zero = np.zeros((1, len(LABELS)))
    assert list(np.array(LABELS)[scores.predict(zero)[0]]) == list(table["prediction"])
    acc, gap = scores.accuracy_and_gap(zero)
    assert acc[0] == pytest.approx(measured["acc"]) and gap[0] == pytest.approx(measured["max_gap"])


@pytest.mark.parametrize("seed", range(3))
def test_at_the_end_of_accuracy_the_fitted_half_is_no_less_accurate(seed):
    scores = scores_of(scored(planted=1.0, seed=seed))
    fitted = scores.accuracy_and_gap(offsets.fit(scores, seed=seed))
    before = scores.accuracy_and_gap(np.zeros((1, len(LABELS))))
    assert fitted[0][0] >= before[0][0] and fitted[1][-1] <= before[1][0]


@pytest.mark.parametrize("seed", range(3))
def test_a_gap_that_an_offset_explains_falls_on_speakers_that_it_never_saw(seed):
    fair, unfair = scored(seed=seed), scored(planted=4.5, seed=seed)
    before = metrics.evaluate(unfair, labels=LABELS)
    assert before["max_gap"] > 0.07 + metrics.evaluate(fair, labels=LABELS)["max_gap"]
    rows = offsets.judged(unfair, labels=list(LABELS))
    middle = rows[rows["weight"] == 0.5].iloc[0]
    assert middle["max_gap"] < before["max_gap"] - 0.05
    assert rows["acc"].iloc[0] > before["acc"]


def test_what_is_judged_is_never_fitted_to():
    table = scored(planted=2.0).sort_values(["utterance_id", "modality"], ignore_index=True)
    first = offsets.in_first_half(units_of(table)[0])[units_of(table)[1]]
    whole, _ = offsets.cross_fitted(scores_of(table), first)
    for half in (first, ~first):  # other truth and other scores there: the same offsets for it
        other = scores_of(table)
        other.label[half] = np.random.default_rng(0).integers(len(LABELS), size=half.sum())
        assert (offsets.cross_fitted(other, first)[0][:, half] == whole[:, half]).all()


def test_halves_cut_no_speaker_and_are_even_in_each_language_and_gender():
    units, unit = units_of(table := scored(5).sort_values("utterance_id", ignore_index=True))
    first = offsets.in_first_half(units)
    assert table.assign(first=first[unit]).groupby("speaker")["first"].nunique().eq(1).all()
    shares = pd.Series(first).groupby(units["stratum"]).sum()
    assert set(shares) == {2, 3} and abs(first.sum() - (~first).sum()) <= 1
    assert (offsets.in_first_half(units, seed=1) != first).any()
    alone = units_of(scored(1))[0]
    assert pd.Series(offsets.in_first_half(alone)).groupby(alone["stratum"]).mean().between(
        0.4, 0.6).all()  # fmt: skip


def test_the_same_predictions_give_the_same_line_in_any_order():
    table = scored(planted=1.0)
    line = offsets.judged(table, labels=list(LABELS))
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(offsets.judged(shuffled, labels=list(LABELS)), line)
    assert offsets.judged(table.drop(columns=COLUMNS[:1]), labels=list(LABELS)) is None


@pytest.fixture
def sweep(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    path = records.storage / "predictions" / "t0000.parquet"
    scored(planted=2.0).assign(split="dev").to_parquet(path, index=False)
    return records


def test_the_report_has_the_line_its_numbers_and_one_sentence(sweep, tmp_path):
    plots = report.write(sweep.directory, tmp_path / "plots", quiet=True)
    info = front.info(sweep)
    line = offsets.line(info, sweep)
    pd.testing.assert_frame_equal(pd.read_csv(plots / "offsets.csv"), line)
    said = offsets.sentence(info, line)
    assert said.startswith("What a trained point must beat") and "(ERM)" in said
    assert html.escape(said) in (plots / "report.html").read_text()
    assert "ERM with offsets" in (plots / "pareto.svg").read_text()


def test_a_line_that_is_degenerate_is_nothing_to_beat(sweep):
    info = front.info(sweep)
    line = offsets.line(info, sweep).assign(degenerate=True)
    assert "so nothing" in offsets.sentence(info, line)


def test_without_log_probabilities_the_report_is_as_before(tmp_path):
    records = write(tmp_path / "sweep", THREE)
    plots = report.write(records.directory, tmp_path / "plots", quiet=True)
    assert not (plots / "offsets.csv").exists()
    assert "must beat" not in (plots / "report.html").read_text()
    assert "ERM with offsets" not in (plots / "pareto.svg").read_text()
