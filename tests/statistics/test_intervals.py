"""Intervals against scipy's, closed forms and brute force. Coverage: `make figures-coverage`."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from fake_sweep import LABELS, balanced, predictions, utterances
from scipy import stats

from analysis.statistics import SpeakerSums, intervals, paired
from analysis.statistics.speaker_sums import largest_gap
from ermgap import metrics
from ermgap.config import GENDERS


def sums_of(table, *, systems: int = 1, right: float = 0.6, handicap: float = 0.2) -> SpeakerSums:
    made = {
        f"s{i}": predictions(table, right=right, handicap=handicap * i, seed=i)
        for i in range(systems)
    }
    return SpeakerSums.of(made, labels=LABELS)


def test_the_interval_of_an_accuracy_gap_is_welch_s_over_speakers():
    """With speakers of equal size who differ: an exact identity, degrees of freedom included."""
    table = balanced(5, each=60)
    chance = table["speaker"].str[-1].astype(int) * 0.15 + 0.2 - 0.1 * (table["gender"] == "male")
    hit = np.random.default_rng(3).random(len(table)) < chance
    table["prediction"] = np.where(hit, table["label"], "")
    sums = SpeakerSums.of({"m": table}, labels=LABELS)
    gaps = intervals.signed_gaps(sums, "m").set_index(["cell", "metric", "class"])
    hits = (table["label"] == table["prediction"]).groupby(
        [table["language"], table["gender"], table["speaker"]]
    )
    for language in ("de", "en", "ja"):
        sides = [hits.mean()[language, gender].to_numpy() for gender in GENDERS]
        wanted = stats.ttest_ind(*sides, equal_var=False).confidence_interval(0.95)
        row = gaps.loc[(f"{language}/speech", "acc", "all")]
        assert row["gap"] == pytest.approx(sides[0].mean() - sides[1].mean())
        assert (row["low"], row["high"]) == pytest.approx((wanted.low, wanted.high))


def test_errors_of_other_gaps_are_near_scipy_s_bootstrap_over_speakers():
    """scipy resamples n of n, which is too short by sqrt((n - 1) / n)."""
    table = predictions(balanced(12), right=0.6, handicap=0.1, seed=1)
    sums = SpeakerSums.of({"m": table}, labels=LABELS, min_support=1)
    gaps = (
        intervals.signed_gaps(sums, "m").query("cell == 'de/speech'").set_index(["metric", "class"])
    )
    rows = [
        np.flatnonzero((sums.units["language"] == "de") & (sums.units["side"] == gender))
        for gender in GENDERS
    ]
    order = intervals.parts(sums)
    for part in (("tpr", "joy"), ("fpr", "joy"), ("w_f1", "all")):

        def gap(first, second, part=part):
            weights = np.ones((1, len(sums.units)))
            for side, chosen in zip(rows, (first, second), strict=True):
                weights[0, side] = np.bincount(chosen, minlength=12)
            return sums.signed_gaps(weights, "m")[0, 0, 0, order.index(part)]

        indices = (np.arange(12), np.arange(12))
        found = stats.bootstrap(indices, gap, vectorized=False, n_resamples=600, rng=0,
                                method="percentile")  # fmt: skip
        assert gaps.loc[part, "se"] == pytest.approx(
            found.standard_error * np.sqrt(12 / 11), rel=0.15
        )


def test_leaving_speakers_out_brackets_what_was_measured():
    gaps = intervals.signed_gaps(sums_of(utterances()), "s0")
    assert (gaps["least"] <= gaps["gap"] + 1e-12).all()
    assert (gaps["gap"] <= gaps["most"] + 1e-12).all()
    assert (gaps["low"] <= gaps["gap"]).all() and (gaps["gap"] <= gaps["high"]).all()
    assert gaps[["low", "high"]].abs().max().max() <= 1.0
    np.testing.assert_allclose(gaps["first_rate"] - gaps["second_rate"], gaps["gap"])


def test_one_speaker_gives_no_interval_and_no_bound():
    table = utterances(speakers=3)
    table.loc[(table["language"] == "de") & (table["gender"] == "male"), "speaker"] = "alone"
    sums = sums_of(table, systems=2)
    gaps = intervals.signed_gaps(sums, "s0").set_index("cell")
    assert gaps.loc["de/speech", ["se", "df", "low", "high"]].isna().all(axis=None)
    assert gaps.loc["en/speech", ["se", "df", "low", "high"]].notna().all(axis=None)
    weights = sums.draws(100, np.random.default_rng(0))
    assert np.isnan(intervals.max_gap_interval(sums, "s0", weights).at_most)
    change = paired.paired_differences(sums, "s1", "s0", weights)["max_gap"]
    assert np.isfinite(change.value)
    assert np.isnan([change.se, change.low, change.high, change.below]).all()


def said_by(speakers: int, *, each: int = 6, women: int = 4) -> pd.DataFrame:
    """Joy of `women` women and 4 men of German: `speakers` of the women say it, `each` times."""
    table = balanced(4).query("language == 'de'").reset_index(drop=True)
    table["label"] = np.resize(LABELS[:2], len(table))
    number = table["speaker"].str[-1].astype(int)
    joyful = ((table["gender"] == "male") | (number < speakers)) & (table.index % 20 < each)
    table = table[(table["gender"] == "male") | (number < women)]
    table["label"] = table["label"].mask(joyful, "joy")
    return predictions(table.reset_index(drop=True), right=0.6, handicap=0.1, seed=1)


def test_a_class_of_one_speaker_of_a_gender_has_no_interval():
    gaps = intervals.signed_gaps(SpeakerSums.of({"m": said_by(1)}, labels=LABELS), "m")
    gaps = gaps.set_index(["metric", "class"])
    assert np.isfinite(gaps.loc[("tpr", "joy"), "gap"])
    six = ["se", "df", "low", "high", "least", "most"]
    assert gaps.loc[("tpr", "joy"), six].isna().all()
    for other in (("tpr", LABELS[0]), ("fpr", "joy"), ("acc", "all"), ("w_f1", "all")):
        assert gaps.loc[other, six].notna().all()


def test_a_class_of_two_speakers_has_the_freedom_of_two():
    gaps = intervals.signed_gaps(SpeakerSums.of({"m": said_by(2)}, labels=LABELS), "m")
    gaps = gaps.set_index(["metric", "class"])
    # Two and four who differ alike: (1/2 + 1/4)^2 / ((1/2)^2 / 1 + (1/4)^2 / 3).
    assert gaps.loc[("tpr", "joy"), "df"] <= 2.08 + 1e-2
    assert gaps.loc[("acc", "all"), "df"] > 3


def test_what_has_no_interval_adds_all_that_it_could_be_to_the_bound():
    sums = SpeakerSums.of({"m": said_by(1)}, labels=LABELS)
    gap, joy = sums.observed("m")[0], intervals.parts(sums).index(("tpr", "joy"))
    most = intervals.coefficients(gap)[joy] * (1 - abs(gap[0, joy]))
    bound = intervals.max_gap_interval(sums, "m", sums.measured_weights)
    reach = intervals._reach(sums, "m")
    assert 0 < most < reach[0] and bound.at_most == pytest.approx(bound.measured + reach[0])
    change = paired.paired_differences(sums, "m", "m", sums.measured_weights.repeat(2, 0))[
        "max_gap"
    ]
    assert change.high > intervals.coefficients(gap)[joy]


def test_a_lone_speaker_whose_utterances_are_all_alike_has_no_interval():
    table = balanced(3).assign(prediction=lambda t: t["label"])
    table.loc[(table["language"] == "de") & (table["gender"] == "male"), "speaker"] = "alone"
    wrong = (table["gender"] == "female") & (table.index % 7 == 0)
    table.loc[wrong, "prediction"] = ""
    sums = SpeakerSums.of({"m": table}, labels=LABELS, min_support=1)
    gaps = intervals.signed_gaps(sums, "m").set_index("cell")
    assert gaps.loc["de/speech", ["se", "df", "low", "high"]].isna().all(axis=None)
    assert gaps.loc["ja/speech", ["se", "df", "low", "high"]].notna().all(axis=None)
    assert np.isnan(intervals.max_gap_interval(sums, "m", sums.measured_weights).at_most)


def test_a_cell_whose_women_are_one_speaker_takes_bound_and_change():
    """Here the language has two women, of whom one alone is asked in text."""
    speech = balanced(2, each=40)
    text = speech[(speech["gender"] == "male") | speech["speaker"].str.endswith("0")]
    table = pd.concat([speech, text.assign(modality="text")], ignore_index=True)
    made = {str(i): predictions(table, right=0.6, handicap=0.1, seed=i) for i in range(2)}
    sums = SpeakerSums.of(made, labels=LABELS)
    weights = sums.draws(100, np.random.default_rng(0))
    gaps = intervals.signed_gaps(sums, "0").set_index("cell")
    assert gaps.loc["de/text", "low"].isna().all() and gaps.loc["de/speech", "low"].notna().all()
    assert not sums.lone and np.isnan(intervals.max_gap_interval(sums, "0", weights).at_most)
    change = paired.paired_differences(sums, "1", "0", weights)
    assert np.isfinite(change["acc"].low) and np.isfinite(change["max_gap"].value)
    largest_change = change["max_gap"]
    assert np.isnan([largest_change.se, largest_change.low, largest_change.below]).all()


@pytest.mark.parametrize("wrong", [0, 3])
def test_speakers_who_are_alike_by_chance_are_no_certainty(wrong):
    """Every speaker of a gender has the same answers: the utterances alone leave it open."""
    table = balanced(2).assign(prediction=lambda t: t["label"])
    turn = table.groupby("speaker").cumcount()
    table.loc[(table["gender"] == "female") & (turn < wrong), "prediction"] = ""
    better = table.assign(prediction=table["label"])
    sums = SpeakerSums.of({"m": table, "b": better}, labels=LABELS, min_support=1)
    gaps = intervals.signed_gaps(sums, "m")
    assert (gaps["se"] > 0).all() and (gaps["low"] < gaps["gap"]).all()
    assert (gaps["gap"] < gaps["high"]).all()
    p, n = 1 - wrong / 20, 40
    sides = [(p * n + 1) / (n + 2), (n + 1) / (n + 2)]
    wanted = np.sqrt(sum(side * (1 - side) / (n + 2) for side in sides))
    assert gaps.query("metric == 'acc'")["se"].to_numpy() == pytest.approx(wanted)
    weights = sums.draws(200, np.random.default_rng(0))
    found = intervals.max_gap_interval(sums, "m", weights)
    assert found.at_most > found.measured + 0.04
    for change in paired.paired_differences(sums, "b", "m", weights).values():
        assert change.low < change.value < change.high and 0 < change.below < 1


def test_two_against_many_do_not_borrow_their_freedom():
    """Two women who are alike by chance against twenty men."""
    table = balanced(20, each=30).query("language == 'de'")
    number = table["speaker"].str.extract(r"(\d+)$")[0].astype(int)
    table = table[(table["gender"] == "male") | (number < 2)].reset_index(drop=True)
    sums = SpeakerSums.of({"m": predictions(table, right=0.6, handicap=0.0, seed=4)}, labels=LABELS)
    row = intervals.signed_gaps(sums, "m").set_index("metric").loc["acc"]
    assert row["df"] <= 0.55**2 / (0.5**2 / 1 + 0.05**2 / 19) + 1e-9


def cells_of_gaps(gaps: dict[str, float], *, seed: int) -> pd.DataFrame:
    """Two women and two men a language; women are recognised less by what is given."""
    rng = np.random.default_rng(seed)
    table = balanced(2, each=50)
    low = table["language"].map(gaps) * (table["gender"] == "female")
    hit = rng.random(len(table)) < 0.7 - low
    return table.assign(prediction=np.where(hit, table["label"], ""))


def test_a_maximum_of_three_unfair_cells_is_not_surely_above_one_of_the_same_size():
    """Errors raise a maximum of three by more; with three cells against one it shows each time."""
    fell = []
    for seed in range(20):
        made = {
            "erm": cells_of_gaps(dict.fromkeys(("de", "en", "ja"), 0.2), seed=seed),
            "m": cells_of_gaps({"de": 0.2, "en": 0.0, "ja": 0.0}, seed=100 + seed),
        }
        sums = SpeakerSums.of(made, labels=LABELS)
        weights = sums.draws(200, np.random.default_rng(seed))
        change = paired.paired_differences(sums, "m", "erm", weights)["max_gap"]
        noise = np.mean(largest_gap(sums.signed_gaps(weights, "erm") - sums.observed("erm")))
        assert change.high >= change.value + noise and (change.high < 0) == (change.below > 0.95)
        fell.append(change.high < 0)
    assert sum(fell) <= 1


def test_the_average_gap_is_the_sum_of_its_weighed_parts():
    sums = sums_of(utterances(n=90), systems=3)
    for name in sums.counts:
        gap = sums.observed(name)
        counts = [np.nansum(intervals.coefficients(one) * np.abs(one[0])) for one in gap]
        np.testing.assert_allclose(counts, metrics.gap_sizes(gap)["avg"])


def test_the_widest_choice_of_signs_is_found():
    rng = np.random.default_rng(0)
    for _ in range(30):
        moved = rng.normal(size=(6, 8)) * rng.random(8)
        all_signs = np.array(list(product((-1.0, 1.0), repeat=8)))
        best = np.linalg.norm(moved @ all_signs.T, axis=0).max()
        found = intervals._largest_error(moved[:, None], first=np.ones((1, 8)))[0]
        assert np.linalg.norm(moved @ found) >= 0.97 * best


def test_the_largest_gap_is_corrected_downwards_and_bounded_from_above():
    sums = sums_of(utterances(n=960), systems=3)
    weights = sums.draws(500, np.random.default_rng(0))
    for name in sums.counts:
        found = intervals.max_gap_interval(sums, name, weights)
        assert found.measured == pytest.approx(float(largest_gap(sums.observed(name))))
        assert 0 <= found.corrected <= found.measured < found.at_most <= 1.0


def test_a_system_is_level_with_itself_and_paired_intervals_are_shorter():
    base = balanced(6)
    first = predictions(base, right=0.6, handicap=0.0, seed=0)
    second = first.copy()  # differs on a few utterances alone
    changed = second.index[::15]
    second.loc[changed, "prediction"] = second.loc[changed, "label"]
    sums = SpeakerSums.of({"a": first, "b": second}, labels=LABELS)
    weights = sums.draws(500, np.random.default_rng(0))
    for change in paired.paired_differences(sums, "a", "a", weights).values():
        assert change.value == 0.0 and change.low < 0 < change.high and change.below <= 0.5
    found = paired.paired_differences(sums, "b", "a", weights)
    assert found["acc"].low > 0 and found["acc"].below < 0.01
    other = predictions(base, right=0.65, handicap=0.0, seed=5)
    unpaired = SpeakerSums.of({"a": first, "b": other}, labels=LABELS)
    is_lone = paired.paired_differences(unpaired, "b", "a", weights)
    assert found["acc"].se < is_lone["acc"].se / 2
