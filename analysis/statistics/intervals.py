"""How sure a gap is: intervals of signed differences, and a bound of the largest gap.

    gaps = signed_gaps(sums, "t0004")                # one row a cell and part
    weights = sums.draws(2000, np.random.default_rng(0))
    bound = max_gap_interval(sums, "t0004", weights)   # measured, corrected, at most

An absolute value, or the maximum of several, gets no percentile interval: that could not contain
zero. Signed differences between two sides get Student's interval from `jackknife`, widened for the
number of pairs that are compared (Bonferroni), and none where one speaker of a side has all of the
utterances.

A cell's average gap is the largest of the linear functions of its signed differences that the
choices of a pair and a sign for each of them give. The true one is one of these, of which the
measured gap is no less than the estimate: so the measured gap plus the one-sided reach of the
function with the largest error is a bound of the true gap, and the largest of these bounds over
cells one of max_gap, without any correction for many comparisons. A difference that has no interval
adds all that it could be, 1.
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
    """Every defined signed gap (first less second side) with its interval, one row each.

    Columns: cell, metric (tpr, fpr, w_f1, acc), class, first and second (the sides), first_rate and
    second_rate, gap, se, df, low, high, and least and most, the range over leaving out each
    speaker; fractions. Where one speaker of a side has all utterances of a class, or of a cell,
    these six are NaN: what differs between speakers cannot be seen there. The intervals of a cell's
    pairs hold together with confidence LEVEL.
    """
    rate = sums.rates(sums.measured_weights, system)[0]
    gap, without = metrics.differences(rate), sums.signed_gaps(sums.without_each(), system)
    se, df = jackknife(sums, gap, without, sums.share_of_pairs, by_chance(sums, rate))
    compared = np.maximum(np.isfinite(gap).sum(1, keepdims=True), 1)
    reach = stats.t.ppf(1 - (0.5 - LEVEL / 2) / compared, df) * se
    at = np.nonzero(np.isfinite(gap))
    named, without = parts(sums), np.where(np.isfinite(se), without, np.nan)[:, *at]
    first, second = (side[at[1]] for side in metrics.pairs(len(sums.sides)))
    columns = {
        "cell": [sums.cells[c] for c in at[0]],
        "metric": [named[p][0] for p in at[2]],
        "class": [named[p][1] for p in at[2]],
        "first": [sums.sides[side] for side in first],
        "second": [sums.sides[side] for side in second],
        "first_rate": rate[at[0], first, at[2]],
        "second_rate": rate[at[0], second, at[2]],
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
            all utterances of a side in a cell.
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

    Student's quantile times the largest error over choices of pairs and signs, and all that
    differences without an interval could add. At least the half of the average that accuracy and
    W-F1 are, which rise and fall together, varies with the utterances.
    """
    whole, without = sums.observed(system), sums.signed_gaps(sums.without_each(), system)
    known = has_interval(sums, system)
    usable, least = accuracy_is_known(known, whole), half_by_chance(sums, system)
    scale = np.ones((len(sums.units), 1, 1))
    for rows in sums.strata:
        scale[rows] = np.sqrt((len(rows) - 1) / len(rows))
    reach = np.full(len(whole), np.nan)
    for cell in np.flatnonzero(usable):
        gap, weight = whole[cell], coefficients(whole[cell])
        change = np.where(known[cell], without[:, cell] - gap, 0.0) * weight
        selected = _largest_error(change * scale, first=_one_pair_each(np.nan_to_num(gap)))
        there = np.isin(sums.side, _sides_of(selected * weight, len(sums.sides)))
        share = np.where(there, sums.share[:, cell, -1], 0.0)
        error = change.reshape(len(change), -1) @ selected.ravel()
        se, df = jackknife(sums, np.zeros(()), error, share, least[cell])
        size = np.nan_to_num(metrics.largest_difference(gap))
        unseen = np.where(all_known(known, whole)[cell], 0.0, weight * (1 - size))
        reach[cell] = stats.t.ppf(LEVEL, df) * se + unseen.sum()
    return reach


def has_interval(sums: SpeakerSums, system: str) -> np.ndarray:
    """Whether each signed gap has an interval, bool [C, pairs, 2K + 2]."""
    whole, without = sums.observed(system), sums.signed_gaps(sums.without_each(), system)
    return np.isfinite(jackknife(sums, whole, without, sums.share_of_pairs)[0])


def all_known(known: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Whether every defined pair of a difference has an interval, bool [C, 2K + 2]."""
    return (known | ~np.isfinite(whole)).all(1)


def accuracy_is_known(known: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Whether a cell's accuracies can be compared with intervals, bool [C]."""
    return all_known(known, whole)[:, -1] & np.isfinite(whole[..., -1]).any(1)


def half_by_chance(sums: SpeakerSums, system: str) -> np.ndarray:
    """Variance [C] of half a difference of accuracies, of the noisiest pair, all speakers alike."""
    rate = sums.rates(sums.measured_weights, system)[0]
    defined = np.isfinite(metrics.differences(rate)[..., -1])
    return np.where(defined, by_chance(sums, rate)[..., -1], 0.0).max(1, initial=0.0) / 4


def coefficients(gap: np.ndarray) -> np.ndarray:
    """Weight of each largest difference [P] in the average gap of its cell, gap [pairs, P]."""
    k, there = (gap.shape[-1] - 2) // 2, np.isfinite(gap).any(0)
    blocks = [slice(0, k), slice(k, 2 * k), slice(-2, -1), slice(-1, None)]
    weights = np.zeros(gap.shape[-1])
    for block in blocks:
        weights[block] = there[block] / max(there[block].sum(), 1)
    return weights / max(sum(there[block].any() for block in blocks), 1)


def _one_pair_each(values: np.ndarray) -> np.ndarray:
    """1 or -1 at each part's largest |value|, by its sign, and 0 elsewhere: [pairs, P]."""
    selected, at = np.zeros_like(values), np.abs(values).argmax(0)
    place = at, np.arange(values.shape[1])
    selected[place] = np.where(values[place] < 0, -1.0, 1.0)
    return selected


def _sides_of(selected: np.ndarray, sides: int) -> np.ndarray:
    """The sides of pairs that have some value other than 0, of values [pairs, P]."""
    used = selected.any(1)
    return np.unique(np.concatenate([side[used] for side in metrics.pairs(sides)]))


def _largest_error(moved: np.ndarray, *, first: np.ndarray) -> np.ndarray:
    """One signed pair for each part, [pairs, P], that makes the sum of moved [U, pairs, P] large.

    Ascent from several starts: the square is convex, so that each step to the pairs and signs of
    its gradient increases it.
    """
    flat = moved.reshape(len(moved), -1)
    square = flat.T @ flat
    best, most = first, -1.0
    starts = [start.reshape(first.shape) for start in np.linalg.eigh(square)[1].T[::-1]]
    for start in [first, *map(_one_pair_each, starts)]:
        selected = start
        for _ in range(50):
            after = _one_pair_each((square @ selected.ravel()).reshape(first.shape))
            if (after == selected).all():
                break
            selected = after
        if (value := selected.ravel() @ square @ selected.ravel()) > most:
            best, most = selected, value
    return best
