"""What the committed table of coverage says, on fewer simulated dev sets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import figures_coverage

from analysis.panel import largest


@pytest.mark.parametrize("gap", figures_coverage.GAPS)
def test_the_simulated_truth_is_the_wanted_gap(gap):
    truth = figures_coverage.true_gaps(figures_coverage.handicap_of(gap))
    assert float(largest(truth)) == pytest.approx(gap, abs=1e-9)
    assert (truth[1:] == 0).all()


def test_a_large_simulated_set_shows_the_truth():
    handicap, rng = figures_coverage.handicap_of(0.15), np.random.default_rng(0)
    each = figures_coverage.EACH
    try:
        figures_coverage.EACH = 40_000
        table = figures_coverage.dev_set(handicap, 4000, "equal", rng)
    finally:
        figures_coverage.EACH = each
    from analysis.panel import Panel

    found = Panel.of({"m": table}, labels=figures_coverage.LABELS).observed("m")
    np.testing.assert_allclose(found, figures_coverage.true_gaps(handicap), atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("shares", figures_coverage.SHARES)
@pytest.mark.parametrize("speakers", figures_coverage.SPEAKERS)
@pytest.mark.parametrize("gap", [0.0, 0.15])
def test_intervals_bounds_and_the_null_band_are_calibrated(gap, speakers, shares):
    """150 sets: a share of 95 % has a standard error of 1.8 points, one of 5 % likewise."""
    rows = [figures_coverage.one((gap, speakers, shares, 10_000 + seed)) for seed in range(150)]
    for metric in ("tpr", "fpr", "w_f1", "acc"):
        assert np.mean([row[f"held_{metric}"] for row in rows]) >= 0.92
    assert np.mean([row["at_most"] >= gap for row in rows]) >= 0.92
    over = np.mean([row["measured"] > row["band"] for row in rows])
    assert over <= 0.11 if gap == 0 else over > 0.05
