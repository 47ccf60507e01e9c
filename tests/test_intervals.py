"""Intervals against scipy's, closed forms and brute force. Coverage: `make figures-coverage`."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from fake_sweep import LABELS, predictions, utterances
from scipy import stats
from test_analysis_uncertainty import balanced

from analysis import intervals
from analysis.panel import Panel, largest
from ermgap import metrics


def panel_of(table, *, systems: int = 1, right: float = 0.6, handicap: float = 0.2) -> Panel:
    made = {
        f"s{i}": predictions(table, right=right, handicap=handicap * i, seed=i)
        for i in range(systems)
    }
    return Panel.of(made, labels=LABELS)


def test_the_interval_of_an_accuracy_gap_is_welch_s_over_speakers():
    """With speakers of equal size: an exact identity, degrees of freedom included."""
    table = predictions(balanced(5), right=0.6, handicap=0.2, seed=3)
    panel = Panel.of({"m": table}, labels=LABELS)
    told = intervals.signed(panel, "m").set_index(["cell", "metric", "class"])
    hits = (table["label"] == table["prediction"]).groupby(
        [table["language"], table["gender"], table["speaker"]]
    )
    for language in ("de", "en", "ja"):
        sides = [hits.mean()[language, gender].to_numpy() for gender in metrics.GENDERS]
        wanted = stats.ttest_ind(*sides, equal_var=False).confidence_interval(0.95)
        row = told.loc[(f"{language}/speech", "acc", "all")]
        assert row["gap"] == pytest.approx(sides[0].mean() - sides[1].mean())
        assert (row["low"], row["high"]) == pytest.approx((wanted.low, wanted.high))


def test_errors_of_other_gaps_are_near_scipy_s_bootstrap_over_speakers():
    """scipy resamples n of n, which is too short by sqrt((n - 1) / n)."""
    table = predictions(balanced(12), right=0.6, handicap=0.1, seed=1)
    panel = Panel.of({"m": table}, labels=LABELS, min_support=1)
    told = intervals.signed(panel, "m").query("cell == 'de/speech'").set_index(["metric", "class"])
    rows = [
        np.flatnonzero((panel.units["language"] == "de") & (panel.units["gender"] == gender))
        for gender in metrics.GENDERS
    ]
    order = intervals.parts(panel)
    for part in (("tpr", "joy"), ("fpr", "joy"), ("w_f1", "all")):

        def gap(first, second, part=part):
            weights = np.ones((1, len(panel.units)))
            for side, chosen in zip(rows, (first, second), strict=True):
                weights[0, side] = np.bincount(chosen, minlength=12)
            return panel.signed(weights, "m")[0, 0, order.index(part)]

        indices = (np.arange(12), np.arange(12))
        found = stats.bootstrap(indices, gap, vectorized=False, n_resamples=600, rng=0,
                                method="percentile")  # fmt: skip
        assert told.loc[part, "se"] == pytest.approx(
            found.standard_error * np.sqrt(12 / 11), rel=0.15
        )


def test_leaving_speakers_out_brackets_what_was_measured():
    told = intervals.signed(panel_of(utterances()), "s0")
    assert (told["least"] <= told["gap"] + 1e-12).all()
    assert (told["gap"] <= told["most"] + 1e-12).all()
    assert (told["low"] <= told["gap"]).all() and (told["gap"] <= told["high"]).all()
    assert told[["low", "high"]].abs().max().max() <= 1.0
    np.testing.assert_allclose(told["female"] - told["male"], told["gap"])


def test_one_speaker_gives_no_interval_and_no_bound():
    table = utterances(speakers=3)
    table.loc[(table["language"] == "de") & (table["gender"] == "male"), "speaker"] = "alone"
    panel = panel_of(table, systems=2)
    told = intervals.signed(panel, "s0").set_index("cell")
    assert told.loc["de/speech", ["se", "df", "low", "high"]].isna().all(axis=None)
    assert told.loc["en/speech", ["se", "df", "low", "high"]].notna().all(axis=None)
    weights = panel.draws(100, np.random.default_rng(0))
    assert np.isnan(intervals.largest_gap(panel, "s0", weights).at_most)
    change = intervals.against(panel, "s1", "s0", weights)["max_gap"]
    assert np.isfinite(change.value)
    assert np.isnan([change.se, change.low, change.high, change.below]).all()


def test_the_average_gap_is_the_sum_of_its_weighed_parts():
    panel = panel_of(utterances(n=90), systems=3)
    for name in panel.sums:
        gap = panel.observed(name)
        sums = [np.nansum(intervals._coefficients(one) * np.abs(one)) for one in gap]
        np.testing.assert_allclose(sums, metrics.sizes(gap)["avg"])


def test_the_widest_choice_of_signs_is_found():
    rng = np.random.default_rng(0)
    for _ in range(30):
        moved = rng.normal(size=(6, 8)) * rng.random(8)
        all_signs = np.array(list(product((-1.0, 1.0), repeat=8)))
        best = np.linalg.norm(moved @ all_signs.T, axis=0).max()
        found = intervals._widest(moved, first=np.ones(8))
        assert np.linalg.norm(moved @ found) >= 0.97 * best


def test_the_largest_gap_is_corrected_downwards_and_bounded_from_above():
    panel = panel_of(utterances(n=960), systems=3)
    weights = panel.draws(500, np.random.default_rng(0))
    for name in panel.sums:
        found = intervals.largest_gap(panel, name, weights)
        assert found.measured == pytest.approx(float(largest(panel.observed(name))))
        assert 0 <= found.corrected <= found.measured < found.at_most <= 1.0


def test_a_system_is_level_with_itself_and_paired_intervals_are_shorter():
    base = balanced(6)
    first = predictions(base, right=0.6, handicap=0.0, seed=0)
    second = first.copy()  # differs on a few utterances alone
    changed = second.index[::15]
    second.loc[changed, "prediction"] = second.loc[changed, "label"]
    panel = Panel.of({"a": first, "b": second}, labels=LABELS)
    weights = panel.draws(500, np.random.default_rng(0))
    for change in intervals.against(panel, "a", "a", weights).values():
        assert change.value == change.low == change.high == 0.0
    found = intervals.against(panel, "b", "a", weights)
    assert found["acc"].low > 0 and found["acc"].below < 0.01
    other = predictions(base, right=0.65, handicap=0.0, seed=5)
    unpaired = Panel.of({"a": first, "b": other}, labels=LABELS)
    alone = intervals.against(unpaired, "b", "a", weights)
    assert found["acc"].se < alone["acc"].se / 2
