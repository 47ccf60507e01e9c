"""How sure a gap is: intervals of signed differences, and a bound of the largest gap.

    gaps = signed_gaps(sums, "t0004")                # one row a cell and part
    weights = sums.draws(2000, np.random.default_rng(0))
    bound = max_gap_interval(sums, "t0004", weights)   # measured, corrected, at most

An absolute value, or the maximum of several, gets no percentile interval: that could not contain
zero. Signed differences get Student's interval from `jackknife`, and none where one speaker of a
gender has all of the utterances.

A cell's average gap is the largest of the linear functions of its signed differences that the
choices of their signs give. The true one is one of these, of which the measured gap is no less than
the estimate: so the measured gap plus the one-sided reach of the function with the largest error is
a bound of the true gap, and the largest of these bounds over cells one of max_gap, without any
correction for many comparisons. A difference that has no interval adds all that it could be, 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.statistics.jackknife import by_chance, jackknife
from analysis.statistics.speaker_sums import SpeakerSums, largest_gap
from ermgap import metrics

LEVEL = 0.95


def parts(sums: SpeakerSums) -> list[tuple[str, str]]:
    """(metric, class) of the 2K + 2 signed gaps, in order; W-F1 and accuracy are of class `all`."""
    named = [(metric, label) for metric in ("tpr", "fpr") for label in sums.labels]
    return [*named, ("w_f1", "all"), ("acc", "all")]


def signed_gaps(sums: SpeakerSums, system: str) -> pd.DataFrame:
    """Every defined signed gap (female less male) with its interval, one row each, in fractions.

    Columns: cell, metric (tpr, fpr, w_f1, acc), class, female, male, gap, se, df, low, high, and
    least and most, the range over leaving out each speaker. Where one speaker of a gender has all
    utterances of a class, or of a cell, these six are NaN: what differs between speakers cannot be
    seen there.
    """
    rate = sums.rates(sums.measured_weights, system)[0]
    gap, without = metrics.differences(rate), sums.signed_gaps(sums.without_each(), system)
    se, df = jackknife(sums, gap, without, sums.share, by_chance(sums, rate))
    reach = stats.t.ppf(0.5 + LEVEL / 2, df) * se
    at = np.nonzero(np.isfinite(gap))
    named, without = parts(sums), np.where(np.isfinite(se), without, np.nan)[:, *at]
    columns = {
        "cell": [sums.cells[c] for c in at[0]],
        "metric": [named[p][0] for p in at[1]],
        "class": [named[p][1] for p in at[1]],
        "female": rate[:, 0][at],
        "male": rate[:, 1][at],
        "gap": gap[at],
        "se": se[at],
        "df": df[at],
        "low": np.maximum(gap - reach, -1.0)[at],
        "high": np.minimum(gap + reach, 1.0)[at],
        "least": np.min(without, 0),
        "most": np.max(without, 0),
    }
    return pd.DataFrame(columns)


@dataclass(frozen=True)
class MaxGapInterval:
    """max_gap of one system, in fractions.

    Attributes:
        measured: as the records have it, which is biased upward.
        corrected: less its bias by the bootstrap, 2 measured - mean(resampled), but at least 0 and
            at most `measured`: the bias of a seminorm is upward.
        at_most: the true one is at most this, with confidence `level`; NaN where one speaker has
            all utterances of a gender in a cell.
    """

    measured: float
    corrected: float
    at_most: float
    level: float = LEVEL


def max_gap_interval(sums: SpeakerSums, system: str, weights: np.ndarray) -> MaxGapInterval:
    """A system's max_gap as measured, less its bias, and its upper bound.

    Args:
        weights: `sums.draws`, for the bias.
    """
    whole = sums.observed(system)
    measured = float(largest_gap(whole))
    corrected = 2 * measured - float(np.nanmean(largest_gap(sums.signed_gaps(weights, system))))
    gaps, reach = metrics.gap_sizes(whole)["avg"], _reach(sums, system)
    bounds = np.minimum((gaps + reach)[np.isfinite(gaps)], 1.0)
    at_most = float(bounds.max()) if len(bounds) else np.nan
    return MaxGapInterval(measured, min(max(corrected, 0.0), measured), at_most)


def _reach(sums: SpeakerSums, system: str) -> np.ndarray:
    """How far each cell's average gap can be above the measured one, [C]; NaN if unknown.

    Student's quantile times the largest error over choices of signs, and all that differences
    without an interval could add. At least the half of the average that accuracy and W-F1 are,
    which rise and fall together, varies with the utterances.
    """
    rate = sums.rates(sums.measured_weights, system)[0]
    whole, without = metrics.differences(rate), sums.signed_gaps(sums.without_each(), system)
    known, least = has_interval(sums, system), by_chance(sums, rate)[:, -1] / 4
    scale = np.ones((len(sums.units), 1))
    for rows in sums.strata:
        scale[rows] = np.sqrt((len(rows) - 1) / len(rows))
    reach = np.full(len(whole), np.nan)
    for cell in np.flatnonzero(known[:, -1]):
        gap, weight = whole[cell], coefficients(whole[cell])
        change = np.where(known[cell], without[:, cell] - gap, 0.0) * weight
        signs = _signs_of_largest_error(change * scale, first=np.where(gap < 0, -1.0, 1.0))
        share = sums.share[:, cell, -1]
        se, df = jackknife(sums, np.zeros(()), change @ signs, share, least[cell])
        unseen = np.where(known[cell], 0.0, weight * (1 - np.abs(np.nan_to_num(gap))))
        reach[cell] = stats.t.ppf(LEVEL, df) * se + unseen.sum()
    return reach


def has_interval(sums: SpeakerSums, system: str) -> np.ndarray:
    """Whether each signed gap has an interval, bool [C, 2K + 2]."""
    whole, without = sums.observed(system), sums.signed_gaps(sums.without_each(), system)
    return np.isfinite(jackknife(sums, whole, without, sums.share)[0])


def coefficients(gap: np.ndarray) -> np.ndarray:
    """Weight of each |signed gap| [P] in the average gap of its cell."""
    k, there = (len(gap) - 2) // 2, np.isfinite(gap)
    blocks = [slice(0, k), slice(k, 2 * k), slice(-2, -1), slice(-1, None)]
    weights = np.zeros(len(gap))
    for block in blocks:
        weights[block] = there[block] / max(there[block].sum(), 1)
    return weights / max(sum(there[block].any() for block in blocks), 1)


def _signs_of_largest_error(moved: np.ndarray, *, first: np.ndarray) -> np.ndarray:
    """Signs [P] that make |moved @ signs| large, moved [U, P]: ascent from several starts.

    The square is convex in the signs, so each step of signs = sign(gradient) increases it.
    """
    square = moved.T @ moved
    best, most = first, -1.0
    for start in [first, *np.where(np.linalg.eigh(square)[1].T[::-1] < 0, -1.0, 1.0)]:
        signs = start
        for _ in range(50):
            after = np.where(square @ signs < 0, -1.0, 1.0)
            if (after == signs).all():
                break
            signs = after
        if (value := signs @ square @ signs) > most:
            best, most = signs, value
    return best
