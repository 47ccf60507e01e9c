"""The gaps of fair models: calibrated by `make figures-coverage`, its parts tested here."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from fake_sweep import LABELS, predictions, utterances
from scipy.special import expit

from analysis.statistics import SpeakerSums, null_band
from analysis.statistics.speaker_sums import largest_gap


def panel_with(effect: float, *, speakers: int, each: int, seed: int) -> SpeakerSums:
    """Speakers whose logits of being right differ by a normal effect."""
    rng = np.random.default_rng(seed)
    table = utterances(n=6 * speakers * each, speakers=speakers, seed=seed)
    easy = {name: rng.normal(0.4, effect) for name in sorted(set(table["speaker"]))}
    hit = rng.random(len(table)) < expit(table["speaker"].map(easy))
    guess = table["label"].map({label: LABELS[i - 1] for i, label in enumerate(LABELS)})
    return SpeakerSums.of(
        {"m": table.assign(prediction=np.where(hit, table["label"], guess))}, labels=LABELS
    )


@pytest.mark.parametrize("effect", [0.0, 0.4, 0.8])
def test_how_much_speakers_differ_is_recovered(effect):
    found = [
        null_band.dispersion(
            panel_with(effect, speakers=30, each=30, seed=seed), "m", np.array([0.5])
        )
        for seed in range(3)
    ]
    assert np.sqrt(np.mean(found)) == pytest.approx(effect, abs=0.12)


def test_few_speakers_leave_it_open_and_one_says_nothing():
    few = null_band.dispersion(
        panel_with(0.5, speakers=3, each=40, seed=0), "m", np.array([0.05, 0.95])
    )
    many = null_band.dispersion(
        panel_with(0.5, speakers=30, each=40, seed=0), "m", np.array([0.05, 0.95])
    )
    assert np.ptp(np.sqrt(few)) > 2 * np.ptp(np.sqrt(many))
    lone = panel_with(0.5, speakers=1, each=40, seed=0)
    assert null_band.dispersion(lone, "m", np.array([0.5])) is None
    assert np.isnan(null_band.fair(lone, "m").high)


def test_the_variance_of_what_is_left_is_that_of_simulated_speakers():
    """Rates estimated from the same units, of very unequal sizes."""
    n = np.array([[30.0, 6.0], [8.0, 3.0], [2.0, 5.0]])
    rate, rng = np.array([0.7, 0.4]), np.random.default_rng(0)
    at = int(np.argmin(np.abs(null_band.GRID - 0.5)))
    for index in (0, at):
        s2 = null_band.GRID[index]
        middle = np.log(rate / (1 - rate)) * np.sqrt(1 + null_band.SHRINK**2 * s2)
        effect = rng.normal(0, np.sqrt(s2), (200_000, 3, 1))
        hits = rng.binomial(n.astype(int), expit(middle + effect))
        left = (hits - n * hits.sum(1, keepdims=True) / n.sum(0)).sum(-1)
        np.testing.assert_allclose(null_band._variances(n, rate)[:, index], left.var(0), rtol=0.02)


def test_an_unfair_model_leaves_the_band_and_a_fair_one_does_not():
    table = utterances(n=2400, speakers=8)
    made = {
        "fair": predictions(table, right=0.6, handicap=0.0, seed=1),
        "unfair": predictions(table, right=0.6, handicap=0.4, seed=0),
    }
    sums = SpeakerSums.of(made, labels=LABELS)
    fair, unfair = (null_band.fair(sums, name) for name in made)
    assert 0 < fair.median < fair.high
    assert float(largest_gap(sums.observed("unfair"))) > unfair.high and unfair.beaten < 0.01
    assert fair.beaten > 0.05 and float(largest_gap(sums.observed("fair"))) < fair.high
    assert null_band.fair(sums, "fair") == fair  # the same draws for the same seed


def test_fair_worlds_keep_the_accuracy():
    sums = panel_with(0.5, speakers=10, each=30, seed=2)
    variance = np.full(300, 0.25)
    rates = null_band._simulated(sums, "m", variance, np.random.default_rng(0))
    measured = sums.rates(sums.measured_weights, "m")[0]
    np.testing.assert_allclose(rates[..., -1].mean((0, 2)), measured[..., -1].mean(1), atol=0.02)


def test_a_lone_speaker_is_as_easy_or_hard_in_all_utterances():
    """Fair worlds of one woman and many men: the gap has the variance of her one effect."""
    table = utterances(n=1200, speakers=8, seed=1).query("language == 'de'")
    table["speaker"] = table["speaker"].mask(table["gender"] == "female", "alone")
    sums = SpeakerSums.of({"m": predictions(table, right=0.6, handicap=0.0, seed=0)}, labels=LABELS)
    assert sums.lone == ("de/female",) and len(set(sums.units["speaker"])) == 9
    rates = null_band._simulated(sums, "m", np.full(2000, 1.0), np.random.default_rng(0))[..., -1]
    middle = np.log(0.6 / 0.4) * np.sqrt(1 + null_band.SHRINK**2)
    wanted = np.std(expit(middle + np.random.default_rng(1).normal(size=100_000)))
    assert rates[:, 0, 0].std() == pytest.approx(wanted, rel=0.15)
    assert rates[:, 0, 1].std() < 0.6 * wanted
    assert null_band.fair(sums, "m").high > 0.1


def test_one_language_with_two_speakers_of_a_gender_suffices_for_a_band():
    table = utterances(n=900, speakers=3, seed=1)
    table["speaker"] = table["speaker"].mask(table["language"] != "de", table["language"])
    sums = SpeakerSums.of({"m": predictions(table, right=0.6, handicap=0.0, seed=0)}, labels=LABELS)
    assert len(sums.lone) == 4 and np.isfinite(null_band.fair(sums, "m").high)


def test_every_shuffling_of_ten_speakers_is_tried():
    table = utterances(n=600, speakers=5, seed=3)
    sums = SpeakerSums.of({"m": predictions(table, right=0.6, handicap=0.3, seed=3)}, labels=LABELS)
    found = {one.language: one for one in null_band.permuted(sums, "m")}
    rows = np.flatnonzero((sums.units["language"] == "de").to_numpy())
    cell = sums.cells.index("de/speech")
    gaps = []
    for chosen in combinations(rows, 5):
        side = sums.side.copy()
        side[rows] = ~np.isin(rows, chosen)
        gaps.append(
            float(
                largest_gap(sums.signed_gaps(sums.measured_weights, "m", side=side)[:, [cell]])[0]
            )
        )
    observed = float(largest_gap(sums.observed("m")[[cell]]))
    assert found["de"].p == pytest.approx(np.mean(np.array(gaps) >= observed - 1e-12))
    assert found["de"].smallest == 2 / comb(10, 5) and found["de"].speakers == 10


def test_too_few_speakers_are_told_what_they_could_show_at_best():
    table = utterances(n=600, speakers=3, seed=3)
    sums = SpeakerSums.of({"m": predictions(table, right=0.6, handicap=0.3, seed=3)}, labels=LABELS)
    for one in null_band.permuted(sums, "m"):
        assert one.p is None and one.smallest == pytest.approx(0.1)
