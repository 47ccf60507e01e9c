"""Standard errors by resampling speakers, against closed forms and against repeated experiments."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_sweep import LABELS, balanced, predictions, utterances, write

from analysis.statistics import SpeakerSums
from analysis.statistics.uncertainty import bootstrap, standard_errors
from ermgap import metrics


def errors(table: pd.DataFrame, *, resamples: int = 400) -> dict[str, float]:
    rng = np.random.default_rng(0)
    return bootstrap(SpeakerSums.of({"": table}, labels=LABELS), resamples=resamples, rng=rng)


@pytest.mark.parametrize("speakers", [2, 6])
def test_the_accuracy_error_equals_the_stratified_cluster_formula(speakers):
    table = predictions(balanced(speakers), right=0.6, handicap=0.2, seed=1)
    hits = (table["label"] == table["prediction"]).groupby(
        [table["language"], table["gender"], table["speaker"]]
    )
    variance = hits.sum().groupby(level=[0, 1]).var(ddof=1).sum() * speakers / len(table) ** 2
    assert errors(table, resamples=4000)["acc_se"] == pytest.approx(np.sqrt(variance), rel=0.06)


def test_the_errors_resemble_the_spread_over_repeated_draws_of_speakers():
    table = balanced(6)
    acc, gap, found = [], [], []
    for seed in range(60):
        drawn = predictions(table, right=0.6, handicap=0.3, seed=seed)
        scores = metrics.evaluate(drawn, labels=LABELS)
        acc.append(scores["acc"])
        gap.append(scores["max_gap"])
        found.append(errors(drawn, resamples=200))
    mean = pd.DataFrame(found).mean()
    assert mean["acc_se"] == pytest.approx(np.std(acc), rel=0.35)
    assert mean["max_gap_se"] == pytest.approx(np.std(gap), rel=0.35)


def test_a_lone_speaker_is_counted_and_its_utterances_are_resampled():
    table = predictions(balanced(1), right=0.5, handicap=0.0, seed=0)
    found = errors(table)
    assert found["lone_speakers"] == 6
    p = (table["label"] == table["prediction"]).groupby([table["language"], table["gender"]])
    n, within = len(table), (p.mean() * (1 - p.mean()) * 20**2 / 19).sum()
    assert found["acc_se"] == pytest.approx(np.sqrt(within) / n, rel=0.12)
    assert errors(predictions(balanced(2), right=0.5, handicap=0.0, seed=0))["lone_speakers"] == 0


def test_the_order_of_rows_does_not_change_the_bars():
    table = predictions(utterances(), right=0.6, handicap=0.2, seed=2)
    assert errors(table) == errors(table.sample(frac=1, random_state=1))


def test_a_gap_that_is_undefined_has_no_error():
    table = predictions(balanced(3), right=0.6, handicap=0.0, seed=0)
    women = table[table["gender"] == "female"]
    found = errors(women)
    assert np.isnan(found["max_gap_se"]) and found["acc_se"] > 0


def test_trials_without_readable_predictions_have_no_row(tmp_path):
    trials = [{"acc": 0.6, "max_gap": 0.1}] * 3
    records = write(tmp_path / "sweep", trials)
    (records.storage / "predictions" / "t0001.parquet").write_bytes(b"not a parquet file")
    (records.storage / "predictions" / "t0002.parquet").unlink()
    bars = standard_errors(records, ["t0000", "t0001", "t0002"])
    assert bars["trial_id"].tolist() == ["t0000"]
    assert bars[["acc_se", "max_gap_se"]].to_numpy().min() > 0
