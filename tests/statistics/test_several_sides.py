"""Intervals, bounds and tests where an attribute has more than two sides."""

from __future__ import annotations

from itertools import permutations, product
from math import factorial

import numpy as np
import pandas as pd
import pytest
from fake_sweep import LABELS, predictions, utterances
from scipy import stats

from analysis.statistics import SpeakerSums, intervals, null_band, paired
from analysis.statistics.speaker_sums import largest_gap
from ermgap import metrics

ACCENTS = ("east", "north", "west")


def table(seed: int = 0, *, speakers: int = 4, n: int = 1500) -> pd.DataFrame:
    """Predictions of three languages by speakers of three accents each."""
    made = utterances(n=n, speakers=3 * speakers, seed=seed)
    number = made["speaker"].str.extract(r"(\d+)$")[0].astype(int)
    made["accent"] = np.array(ACCENTS)[number % 3]
    return predictions(made, right=0.6, handicap=0.2, seed=seed)


def sums_of(tables: dict[str, pd.DataFrame], **given) -> SpeakerSums:
    return SpeakerSums.of(tables, labels=LABELS, attribute=("accent",), min_support=1, **given)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_measured_is_what_the_metrics_say(seed):
    made = table(seed)
    sums = sums_of({"m": made})
    wanted = metrics.evaluate(made, labels=LABELS, attribute=("accent",), min_support=1)
    assert sums.sides == ACCENTS
    assert largest_gap(sums.observed("m")) == pytest.approx(wanted["max_gap"], abs=1e-12)
    assert sums.values(sums.measured_weights, "m")["acc"][0] == pytest.approx(wanted["acc"])


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_s_error_is_that_of_the_two_sides_alone_and_its_interval_is_for_three_pairs(seed):
    made = table(seed)
    gaps = intervals.signed_gaps(sums_of({"m": made}), "m").set_index(["cell", "metric", "class"])
    for first, second in (("east", "north"), ("east", "west"), ("north", "west")):
        two = made[made["accent"].isin([first, second])]
        alone = intervals.signed_gaps(sums_of({"m": two}), "m").set_index(gaps.index.names)
        mine = gaps[(gaps["first"] == first) & (gaps["second"] == second)]
        assert mine.index.equals(alone.index)
        for name in ("gap", "se", "df", "first_rate", "second_rate", "least", "most"):
            np.testing.assert_allclose(mine[name], alone[name], atol=1e-12)
        inside = mine[(mine["low"] > -1) & (mine["high"] < 1)]
        wider = stats.t.ppf(1 - 0.025 / 3, inside["df"]) * inside["se"]
        np.testing.assert_allclose((inside["high"] - inside["low"]) / 2, wider)


def test_unknown_sides_change_no_gap_and_no_bound():
    made = table(1)
    unknown = table(2).assign(accent="", speaker="u" + table(2)["speaker"])
    unknown["utterance_id"] = "x" + unknown["utterance_id"]
    both = pd.concat([made, unknown], ignore_index=True)
    alone, whole = sums_of({"m": made}), sums_of({"m": both})
    columns = ["gap", "se", "df", "low", "high"]
    for part in (alone, whole):
        assert part.counted.all()
    np.testing.assert_allclose(
        intervals.signed_gaps(whole, "m")[columns], intervals.signed_gaps(alone, "m")[columns]
    )
    bounds = [
        intervals.max_gap_interval(s, "m", s.measured_weights).at_most for s in (alone, whole)
    ]
    assert bounds[0] == pytest.approx(bounds[1])
    accuracy = (both["label"] == both["prediction"]).mean()
    assert whole.values(whole.measured_weights, "m")["acc"][0] == pytest.approx(accuracy)
    assert [t.p for t in null_band.permuted(whole, "m")] == pytest.approx(
        [t.p for t in null_band.permuted(alone, "m")], abs=0.03
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_widest_choice_of_pairs_and_signs_is_found(seed):
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(10):
        moved = rng.normal(size=(6, 3, 4)) * rng.random((1, 3, 4))
        most = max(
            np.linalg.norm(
                sum(sign * moved[:, pair, part] for part, (pair, sign) in enumerate(one))
            )
            for one in product(product(range(3), (-1.0, 1.0)), repeat=4)
        )
        first = intervals._one_pair_each(rng.normal(size=(3, 4)))
        selected = intervals._largest_error(moved, first=first)
        assert (np.abs(selected).sum(0) == 1).all()
        shares.append(np.linalg.norm((moved * selected).sum((1, 2))) / most)
    assert min(shares) > 0.93 and np.mean(shares) > 0.99


def test_the_bound_is_above_what_was_measured_and_grows_with_a_third_noisy_side():
    made = table(3)
    sums = sums_of({"m": made})
    bound = intervals.max_gap_interval(sums, "m", sums.draws(200, np.random.default_rng(0)))
    assert 0 <= bound.corrected <= bound.measured < bound.at_most <= 1
    few = made[(made["accent"] != "west") | (made["speaker"].str.endswith(("2", "5")))]
    noisy = sums_of({"m": few})
    assert intervals._reach(noisy, "m").max() > intervals._reach(sums, "m").max()


def test_the_change_from_a_model_to_itself_is_none():
    made = table(1)
    sums = sums_of({"a": made, "b": made})
    change = paired.paired_differences(sums, "b", "a", sums.draws(200, np.random.default_rng(0)))
    assert change["max_gap"].value == 0 and change["max_gap"].low < 0 < change["max_gap"].high


def test_every_way_to_deal_three_sides_is_tried_once():
    sides = np.array([0, 0, 1, 2])
    dealt = [tuple(order) for order in null_band._dealt(sides)]
    assert sorted(dealt) == sorted(set(permutations(sides.tolist())))


def test_the_smallest_p_counts_sides_of_equal_size_as_alike():
    made = table(0, speakers=2)
    made = made[made["language"] == "de"]
    (test,) = null_band.permuted(sums_of({"m": made}), "m")
    n = made["speaker"].nunique()
    sizes = made.groupby("accent")["speaker"].nunique()
    ways = factorial(n) / np.prod([factorial(size) for size in sizes])
    alike = np.prod([factorial(count) for count in sizes.value_counts()])
    assert test.speakers == n and test.smallest == pytest.approx(alike / ways)


def test_a_fair_model_s_band_holds_the_gaps_of_fair_models():
    over = []
    for seed in range(20):
        made = predictions(table(seed), right=0.6, handicap=0.0, seed=seed)
        sums = sums_of({"m": made})
        over.append(largest_gap(sums.observed("m")) > null_band.fair(sums, "m", worlds=200).high)
    assert np.mean(over) <= 0.2
