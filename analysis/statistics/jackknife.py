"""Standard errors of a statistic of speakers' sums, by leaving out one speaker at a time.

    se, df = jackknife(sums, gap, without, sums.share, by_chance(sums, rate))

CR3 in Hansen 2024, "Jackknife standard errors for clustered regression", over the speakers who have
a part in the statistic. The degrees of freedom are Satterthwaite's from the strata, where speakers
of unequal sizes N count as (sum N)^2 / sum N^2 of them (Welch 1947 for equal ones). Two who are
alike by chance would lend their small variance the freedom of twenty others, and such intervals
cover 88 %: so the degrees of freedom are no more than if all speakers differed alike (Bell and
McCaffrey 2002; Imbens and Kolesar 2016). The variance is no less than what utterances alone give a
rate, with one success and one failure added (Agresti and Caffo 2000): that all speakers have the
same rate is no certainty.
"""

from __future__ import annotations

import numpy as np

from analysis.statistics.speaker_sums import SpeakerSums
from ermgap import metrics


def jackknife(
    sums: SpeakerSums,
    whole: np.ndarray,
    without: np.ndarray,
    share: np.ndarray,
    least: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors and degrees of freedom, each [...], of statistics `whole` [...].

    Args:
        without: [U, ...], the statistics under `sums.without_each()`.
        share: [U, ...], what a unit weighs in a statistic; 0 where it has no part in it.
        least: [...], what the variance is at the least.

    Both are NaN where all of a stratum's part is one speaker's, or where a statistic is undefined
    without one of the speakers.
    """
    total, split, alike, alike_split = (np.zeros(np.shape(whole)) for _ in range(4))
    blind = np.isnan(whole)
    for rows, is_lone in zip(sums.strata, sums.is_lone, strict=True):
        mine = share[rows]
        n, even = (mine > 0).sum(0), (mine**2).sum(0)
        change = np.where(mine > 0, without[rows] - whole, 0.0)
        variance = (n - 1) / np.maximum(n, 1) * (change**2).sum(0)
        freedom = np.maximum(mine.sum(0) ** 2 / np.where(n > 0, even, 1.0) - 1, 1.0)
        total, split = total + variance, split + variance**2 / freedom
        alike, alike_split = alike + even, alike_split + even**2 / freedom
        blind |= (n == 1) | (is_lone & (n > 0)) | np.isnan(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.fmin(total**2 / split, alike**2 / alike_split)
    se = np.sqrt(np.maximum(total, least))
    return np.where(blind, np.nan, se), np.where(blind, np.nan, df)


def by_chance(sums: SpeakerSums, rate: np.ndarray) -> np.ndarray:
    """Variances [C, pairs, 2K + 2] of differences of rates [C, S, 2K + 2], all speakers alike.

    Of W-F1 it is accuracy's.
    """
    right = np.nan_to_num(np.concatenate([rate[..., :-2], rate[..., [-1, -1]]], -1))
    places = range(len(sums.sides))
    n = np.stack([sums.denominators[sums.side == place].sum(0) for place in places], 1)
    variance, (first, second) = binomial(right * n, n), metrics.pairs(len(sums.sides))
    return variance[:, first] + variance[:, second]


def binomial(hits: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Variance of the rate hits / n, one hit and one miss added to it; 0 where n is."""
    p = (hits + 1) / (n + 2)
    return np.where(n > 0, p * (1 - p) / (n + 2), 0.0)
