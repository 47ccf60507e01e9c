"""Sums over speakers give what whole tables give, resampled or not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_sweep import LABELS, predictions, utterances

from analysis.statistics import SpeakerSums, largest_gap
from ermgap import metrics
from ermgap.errors import UserError


def tables(count: int = 2, **given) -> dict[str, pd.DataFrame]:
    base = utterances(**given)
    return {
        f"s{i}": predictions(base, right=0.6, handicap=0.2 * i, seed=i).sample(
            frac=1, random_state=i
        )
        for i in range(count)
    }


def two_modalities() -> pd.DataFrame:
    one = tables(1)["s0"]
    return pd.concat([one, predictions(one, right=0.7, handicap=0, seed=9).assign(modality="text")])


@pytest.mark.parametrize("make", [lambda: tables(1)["s0"], two_modalities])
def test_what_was_measured_is_what_the_metrics_say(make):
    table = make()
    sums = SpeakerSums.of({"m": table}, labels=LABELS)
    told = metrics.evaluate(table, labels=LABELS)
    assert largest_gap(sums.observed("m")) == pytest.approx(told["max_gap"], abs=1e-12)
    found = sums.values(sums.measured_weights, "m")
    assert found["acc"][0] == pytest.approx(told["acc"])
    assert found["w_f1"][0] == pytest.approx(told["w_f1"])
    for cell, gap in zip(sums.cells, metrics.gap_sizes(sums.observed("m"))["avg"], strict=True):
        assert gap == pytest.approx(told["gaps"][cell]["avg"])


def test_a_weight_is_how_often_a_speaker_is_there():
    table = tables(1)["s0"]
    sums = SpeakerSums.of({"m": table}, labels=LABELS, min_support=1)
    weights = np.random.default_rng(0).integers(0, 3, (4, len(sums.units))).astype(float)
    names = table.groupby(["language", "gender", "speaker"]).ngroup()
    for row in weights:
        repeated = table.loc[np.repeat(table.index, row[names].astype(int))]
        coded = metrics.encode(repeated, labels=LABELS)
        rates = metrics.rates(
            metrics.confusions(coded)[0], classes=sums.compared.classes, sides=sums.compared.sides
        )
        wanted = largest_gap(metrics.differences(rates))
        assert largest_gap(sums.signed_gaps(row[None], "m"))[0] == pytest.approx(float(wanted))


def test_without_a_speaker_is_without_its_rows():
    table = tables(1)["s0"]
    sums = SpeakerSums.of({"m": table}, labels=LABELS, min_support=1)
    found = sums.signed_gaps(sums.without_each(), "m")
    speakers = sorted(set(map(tuple, table[["language", "gender", "speaker"]].to_numpy())))
    for number, (language, gender, speaker) in enumerate(speakers):
        assert sums.units.loc[number, ["language", "side"]].tolist() == [language, gender]
        coded = metrics.encode(table[table["speaker"] != speaker], labels=LABELS)
        rates = metrics.rates(
            metrics.confusions(coded)[0], classes=sums.compared.classes, sides=sums.compared.sides
        )
        np.testing.assert_allclose(found[number, :, 0], rates[:, 0] - rates[:, 1], atol=1e-12)


def test_resampled_weights_keep_each_stratum_s_size_and_have_the_right_variance():
    sums = SpeakerSums.of(tables(1, speakers=3), labels=LABELS)
    weights = sums.draws(4000, np.random.default_rng(0))
    for rows in sums.strata:
        n = len(rows)
        np.testing.assert_allclose(weights[:, rows].sum(1), n)
        # Of a mean of n values: s^2 / n, where the plain bootstrap has (n - 1) / n of it.
        values = np.arange(n, dtype=float)
        assert (weights[:, rows] @ values / n).var() == pytest.approx(
            values.var(ddof=1) / n, rel=0.1
        )


def test_a_stratum_of_one_speaker_is_named_and_its_utterances_are_the_units():
    table = utterances(speakers=1)
    sums = SpeakerSums.of({"m": predictions(table, right=0.5, handicap=0, seed=0)}, labels=LABELS)
    assert len(sums.lone) == 6 and "de/female" in sums.lone
    assert len(sums.units) == len(table) and all(sums.is_lone)


def test_other_sides_can_be_tried():
    sums = SpeakerSums.of(tables(1), labels=LABELS)
    turned = sums.signed_gaps(sums.measured_weights, "s0", side=1 - sums.side)
    np.testing.assert_allclose(turned[0], -sums.observed("s0"))


def test_systems_on_other_utterances_are_refused():
    made = tables()
    with pytest.raises(UserError, match="s1 are not of the same utterances as those of s0"):
        SpeakerSums.of({"s0": made["s0"], "s1": made["s1"].iloc[1:]}, labels=LABELS)
    with pytest.raises(UserError, match="no predictions"):
        SpeakerSums.of({}, labels=LABELS)
    with pytest.raises(UserError, match="lack the column.*speaker"):
        SpeakerSums.of({"s0": made["s0"].drop(columns="speaker")}, labels=LABELS)
