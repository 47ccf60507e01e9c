"""Weighted sums of systems in paired differences, and the number of speakers that a fall needs."""

from __future__ import annotations

import numpy as np
import pytest
from fake_sweep import LABELS, balanced, predictions

from analysis.statistics import SpeakerSums, paired


@pytest.fixture(scope="module")
def sums() -> SpeakerSums:
    made = {
        f"s{i}": predictions(balanced(5), right=0.6, handicap=0.15 * i, seed=7) for i in range(3)
    }
    return SpeakerSums.of(made, labels=LABELS)


def test_a_sum_of_one_system_is_that_system(sums):
    weights = sums.draws(300, np.random.default_rng(0))
    known = {name: paired.scores(sums, name, weights) for name in sums.counts}
    wanted = paired.paired_differences(sums, "s1", "s0", weights)
    for mix in ([0.0, 1.0, 0.0], [0.0, 0.4, 0.6]):
        parts = [known["s0"], known["s1"], known["s1" if mix[2] else "s2"]]
        found = paired.difference(sums, paired.mixture(mix, parts), known["s0"])
        for name, change in wanted.items():
            assert vars(found[name]) == pytest.approx(vars(change))


def test_a_sum_lies_between_its_systems_and_its_errors_are_of_the_sum(sums):
    weights = sums.draws(300, np.random.default_rng(0))
    known = {name: paired.scores(sums, name, weights) for name in sums.counts}
    ends = [paired.difference(sums, known[name], known["s0"]) for name in ("s1", "s2")]
    middle = paired.mixture([0.5, 0.5], [known["s1"], known["s2"]])
    change = paired.difference(sums, middle, known["s0"])
    for name in change:
        assert change[name].value == pytest.approx(np.mean([end[name].value for end in ends]))
        assert change[name].se <= max(end[name].se for end in ends)
    turned = paired.mixture([-1.0], [known["s1"]])
    assert (turned.above, turned.under) == (known["s1"].under, known["s1"].above)


def test_a_fall_needs_so_many_speakers_that_its_upper_bound_is_below_zero():
    change = paired.PairedDifference(value=-0.1, se=0.05, low=-0.4, high=0.1, below=0.6)
    needed = paired.speakers_needed(change, 24)
    assert needed == 24 * 4
    shrunk = -0.1 + (0.1 + 0.1) / np.sqrt(needed / 24)
    assert shrunk == pytest.approx(0.0)
    assert paired.speakers_needed(change, 1) == 4
    rising = paired.PairedDifference(0.1, 0.05, -0.1, 0.3, 0.1)
    assert paired.speakers_needed(rising, 24) is None
