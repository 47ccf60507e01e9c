"""How sure a gap is: intervals of signed differences, and a bound of the largest gap.

    found = signed(panel, "t0004")               # one row a cell and part
    weights = panel.draws(2000, np.random.default_rng(0))
    bound = largest_gap(panel, "t0004", weights)   # max_gap: measured, corrected, at most
    change = against(panel, "t0004", "erm", weights)

An absolute value, or the maximum of several, gets no percentile interval: that could not contain
zero. Signed differences get the delete-one-speaker jackknife with Student's quantile (CR3 in
Hansen 2024, "Jackknife standard errors for clustered regression"), the degrees of freedom by
Satterthwaite from the strata, where n speakers of unequal sizes N count as (sum N)^2 / sum N^2 of
them. A cell's average gap is the largest of the linear functions of its signed differences that the
choices of their signs give. The true one is one of these, of which the measured gap is no less than
the estimate: so the measured gap plus the one-sided reach of the function with the largest error is
a bound of the true gap, and the largest of these bounds over cells one of max_gap, without any
correction for many comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from analysis.panel import Panel, largest
from ermgap import metrics

LEVEL = 0.95


def parts(panel: Panel) -> list[tuple[str, str]]:
    """(metric, class) of the 2K + 2 signed gaps, in order; W-F1 and accuracy are of class `all`."""
    named = [(metric, label) for metric in ("tpr", "fpr") for label in panel.labels]
    return [*named, ("w_f1", "all"), ("acc", "all")]


def signed(panel: Panel, system: str, *, level: float = LEVEL) -> pd.DataFrame:
    """Every defined signed gap (female less male) with its interval, one row each, in fractions.

    Columns: cell, metric (tpr, fpr, w_f1, acc), class, female, male, gap, se, df, low, high, and
    least and most, the range over leaving out each speaker. Of a cell with a gender of one speaker
    se, df, low and high are NaN: what differs between speakers cannot be seen there.
    """
    rate = panel.rates(panel.everyone, system)[0]
    gap, without = metrics.differences(rate), panel.signed(panel.left_out(), system)
    se, df = jackknife(panel, gap, without)
    reach = stats.t.ppf(0.5 + level / 2, df) * se
    at = np.nonzero(np.isfinite(gap))
    named, without = parts(panel), without[:, *at]
    found = {
        "cell": [panel.cells[c] for c in at[0]],
        "metric": [named[p][0] for p in at[1]],
        "class": [named[p][1] for p in at[1]],
        "female": rate[:, 0][at],
        "male": rate[:, 1][at],
        "gap": gap[at],
        "se": se[at],
        "df": df[at],
        "low": np.maximum(gap - reach, -1.0)[at],
        "high": np.minimum(gap + reach, 1.0)[at],
        "least": np.nanmin(without, 0),
        "most": np.nanmax(without, 0),
    }
    return pd.DataFrame(found)


def jackknife(
    panel: Panel, whole: np.ndarray, without: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors and degrees of freedom, each [...], of statistics `whole` [...].

    Args:
        without: [U, ...], the statistics under `panel.left_out()`. A unit without which one is
            undefined counts as if it did not change it.

    A statistic that depends on a stratum of one speaker has neither (NaN).
    """
    total, split = np.zeros(np.shape(whole)), np.zeros(np.shape(whole))
    blind = np.zeros(np.shape(whole), bool)
    for rows, freedom, alone in zip(panel.strata, panel.freedom, panel.alone, strict=True):
        change = np.nan_to_num(without[rows] - whole)
        variance = (len(rows) - 1) / len(rows) * (change**2).sum(0)
        total, split = total + variance, split + variance**2 / freedom
        blind |= alone & (variance > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(split > 0, total**2 / split, 1.0)
    return np.where(blind, np.nan, np.sqrt(total)), np.where(blind, np.nan, df)


@dataclass(frozen=True)
class Largest:
    """max_gap of one system, in fractions.

    Attributes:
        measured: as the records have it, which is biased upward.
        corrected: less its bias by the bootstrap, 2 measured - mean(resampled), but at least 0 and
            at most `measured`: the bias of a seminorm is upward.
        at_most: the true one is at most this, with confidence `level`; NaN where a gender of a
            language has one speaker.
    """

    measured: float
    corrected: float
    at_most: float
    level: float = LEVEL


def largest_gap(panel: Panel, system: str, weights: np.ndarray, *, level: float = LEVEL) -> Largest:
    """What can be said of a system's max_gap.

    Args:
        weights: `panel.draws`, for the bias.
    """
    whole = panel.observed(system)
    measured = float(largest(whole))
    corrected = 2 * measured - float(np.nanmean(largest(panel.signed(weights, system))))
    gaps = metrics.sizes(whole)["avg"]
    reach = _reach(panel, whole, panel.signed(panel.left_out(), system), level)
    known = np.isfinite(gaps).any() and not panel.lone
    bound = min(float(np.nanmax(gaps + reach)), 1.0) if known else np.nan
    return Largest(measured, min(max(corrected, 0.0), measured), bound, level)


def _reach(panel: Panel, whole: np.ndarray, without: np.ndarray, level: float) -> np.ndarray:
    """Of each cell [C]: Student's quantile times the largest error over choices of signs."""
    share = np.ones(len(panel.units))
    for rows in panel.strata:
        share[rows] = np.sqrt((len(rows) - 1) / len(rows))
    found = np.zeros(len(whole))
    for cell, gap in enumerate(whole):
        change = np.nan_to_num(without[:, cell] - gap) * _coefficients(gap)
        moved = change * share[:, None]  # [U, P]
        signs = _widest(moved, first=np.where(gap < 0, -1.0, 1.0))
        se, df = jackknife(panel, np.zeros(()), change @ signs)
        found[cell] = stats.t.ppf(level, df) * se
    return found


def _coefficients(gap: np.ndarray) -> np.ndarray:
    """What each |signed gap| [P] weighs in the average gap of its cell."""
    k, there = (len(gap) - 2) // 2, np.isfinite(gap)
    blocks = [slice(0, k), slice(k, 2 * k), slice(-2, -1), slice(-1, None)]
    weights = np.zeros(len(gap))
    for block in blocks:
        weights[block] = there[block] / max(there[block].sum(), 1)
    return weights / max(sum(there[block].any() for block in blocks), 1)


def _widest(moved: np.ndarray, *, first: np.ndarray) -> np.ndarray:
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


@dataclass(frozen=True)
class Change:
    """A metric of a system less that of another on the same utterances, in fractions.

    Attributes:
        low, high: its interval. below: confidence that the true difference is under 0. All NaN
            where a gender of a language has one speaker.
    """

    value: float
    se: float
    low: float
    high: float
    below: float


def against(
    panel: Panel, system: str, other: str, weights: np.ndarray, *, level: float = LEVEL
) -> dict[str, Change]:
    """Paired differences of acc, w_f1 and max_gap, with intervals.

    Standard errors are the jackknife's, and of max_gap, which has corners, the bootstrap's; the
    degrees of freedom the jackknife's.
    """
    whole = _change(panel, system, other, panel.everyone)
    without = _change(panel, system, other, panel.left_out())
    resampled = largest(panel.signed(weights, system))
    resampled = resampled - largest(panel.signed(weights, other))
    found = {}
    for name, value in whole.items():
        se, df = jackknife(panel, value[0], without[name])
        if name == "max_gap":
            se = np.where(np.isfinite(se), np.nanstd(resampled, ddof=1), np.nan)
        reach = stats.t.ppf(0.5 + level / 2, df) * se
        below = (
            stats.t.cdf(-value[0] / se, df) if se > 0 else np.where(np.isnan(se), se, value[0] < 0)
        )
        found[name] = Change(*map(float, (value[0], se, value[0] - reach, value[0] + reach, below)))
    return found


def _change(panel: Panel, system: str, other: str, weights: np.ndarray) -> dict[str, np.ndarray]:
    mine, theirs = (panel.values(weights, name) for name in (system, other))
    return {name: mine[name] - theirs[name] for name in mine}
