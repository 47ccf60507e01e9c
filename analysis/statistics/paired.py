"""Paired differences: a metric of a system less that of another on the same utterances.

    weights = sums.draws(2000, np.random.default_rng(0))
    change = paired_differences(sums, "t0004", "erm", weights)
    mixed = mixture([0.5, 0.5], [scores(sums, name, weights) for name in ("t0004", "t0005")])
    difference(sums, mixed, scores(sums, "erm", weights))["max_gap"].high

Accuracy and W-F1 get Student's interval from `jackknife`. max_gap is a seminorm of the signed
differences, so that errors raise it on average: by nothing at the least (Jensen's inequality), and
at most by the mean seminorm of the errors alone (the triangle inequality), which the bootstrap
gives. Two systems are not raised alike: one is more where more of its cells compete for the
maximum, or where its predictions are noisier. So each end of their paired difference lies further
out by all that may have raised the one system and not the other; beyond it is Student's one-sided
reach.

`cell_gap` is the average gap of the cell that was named before the sweep: nothing was picked, and
Student's interval is about all that it needs. Noise raises a small true gap more than a large one,
so a measured fall is too small rather than too large where both systems are as noisy. Where one is
noisier, an end lies further out by how much more its errors alone would measure: the most that
noise can raise the two apart if their true signed differences are the same size.

In the place of a system may stand a weighted sum of several, such as a point of a curve that was
smoothed over them: its errors are weighted sums as well, of what leaves out the same speaker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.statistics.intervals import (
    LEVEL,
    accuracy_is_known,
    all_known,
    coefficients,
    half_by_chance,
    has_interval,
)
from analysis.statistics.jackknife import binomial, jackknife
from analysis.statistics.speaker_sums import SpeakerSums, largest_gap
from ermgap import metrics


@dataclass(frozen=True)
class PairedDifference:
    """A metric of a system less that of another on the same utterances, in fractions.

    Attributes:
        low, high: its interval of confidence LEVEL; of max_gap two bounds, each of which holds
            with confidence LEVEL. below: confidence that the true difference is under 0; of
            max_gap that is no probability, since both it and that of the reverse can be small. All
            NaN where one speaker has all utterances of a side in a language or cell.
    """

    value: float
    se: float
    low: float
    high: float
    below: float

    def text(self) -> str:
        """In points, with the interval where there is one: `-9.1 [-14.6, -3.5]`."""
        values = [100 * value for value in (self.value, self.low, self.high)]
        shown = "{:+.1f} [{:+.1f}, {:+.1f}]" if np.isfinite(values[1:]).all() else "{:+.1f}"
        return shown.format(*values).replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True, eq=False)
class Scores:
    """What paired differences need of a system, or of a weighted sum of systems, in fractions.

    Attributes:
        whole, without: acc, w_f1 and max_gap as measured, and without each unit, [U] each.
        hits: right answers of each class, [U, C, K].
        cells: where the largest gaps are, indices.
        drawn: max_gap, and cell_gap where a cell is named, under the resamples, [R] each.
        above, under: at most how much too large, and too small, each of these is on average, of
            cell_gap beside its `noise`; NaN where the accuracy of a cell has no interval.
        noise: cell_gap of resampled errors alone, on average; 0 where no cell is named.
    """

    whole: dict[str, float]
    without: dict[str, np.ndarray]
    hits: np.ndarray
    cells: frozenset[int]
    drawn: dict[str, np.ndarray]
    above: dict[str, float]
    under: dict[str, float]
    noise: float


def paired_differences(
    sums: SpeakerSums, system: str, other: str, weights: np.ndarray
) -> dict[str, PairedDifference]:
    """The `difference` of two systems; `weights` are `sums.draws`."""
    return difference(sums, *(scores(sums, name, weights) for name in (system, other)))


def scores(sums: SpeakerSums, system: str, weights: np.ndarray) -> Scores:
    """The `Scores` of one system; `weights` [R, U] are `sums.draws`."""
    drawn = sums.signed_gaps(weights, system)
    errors, above, under = _bias_bounds(sums, system, drawn)
    measured = sums.values(sums.measured_weights, system)
    gaps = {"max_gap": largest_gap(drawn)}
    ends = {"max_gap": (errors + above.max(), under.max())}
    noise = 0.0
    if sums.named is not None:
        gaps["cell_gap"] = sums.named_gap(drawn)
        ends["cell_gap"] = (above[sums.named], under[sums.named])
        noise = float(np.nanmean(sums.named_gap(drawn - sums.observed(system))))
    return Scores(
        whole={name: value[0] for name, value in measured.items()},
        without=sums.values(sums.without_each(), system),
        hits=sums.counts[system][..., 1],
        cells=frozenset([_worst_cell(sums, system)]),
        drawn=gaps,
        above={name: end[0] for name, end in ends.items()},
        under={name: end[1] for name, end in ends.items()},
        noise=noise,
    )


def mixture(weights: Sequence[float], parts: Sequence[Scores]) -> Scores:
    """The weighted sum of systems' scores; with a weight below 0 a bias turns round."""
    used = [(weight, part) for weight, part in zip(weights, parts, strict=True) if weight]

    def added(of) -> np.ndarray:
        return sum(weight * of(part) for weight, part in used)

    names, gaps = used[0][1].whole, used[0][1].drawn
    bias = [(abs(w), (p.above, p.under) if w > 0 else (p.under, p.above)) for w, p in used]
    return Scores(
        whole={name: added(lambda part, name=name: part.whole[name]) for name in names},
        without={name: added(lambda part, name=name: part.without[name]) for name in names},
        hits=added(lambda part: part.hits),
        cells=frozenset().union(*(part.cells for _, part in used)),
        drawn={name: added(lambda part, name=name: part.drawn[name]) for name in gaps},
        above={name: sum(size * above[name] for size, (above, _) in bias) for name in gaps},
        under={name: sum(size * under[name] for size, (_, under) in bias) for name in gaps},
        noise=added(lambda part: part.noise),
    )


def difference(sums: SpeakerSums, mine: Scores, theirs: Scores) -> dict[str, PairedDifference]:
    """Paired differences of acc, w_f1 and max_gap, and of cell_gap where a cell is named.

    Standard errors are the jackknife's, and of gaps, which have corners, the bootstrap's where it
    is larger. The module's docstring has the bounds of gaps.
    """
    whole = {name: mine.whole[name] - theirs.whole[name] for name in mine.whole}
    without = {name: mine.without[name] - theirs.without[name] for name in mine.without}
    there = sums.denominators[..., -1]  # [U, C]
    differ = np.abs(mine.hits - theirs.hits).sum(-1)  # so many predictions differ at least, [U, C]
    share, least = there.sum(1) / there.sum(), binomial(differ.sum(), there.sum())
    differences = {}
    for name in ("acc", "w_f1"):
        se, df = jackknife(sums, whole[name], without[name], share, least)
        differences[name] = _paired_difference(whole[name], se, df, 0.5 + LEVEL / 2)
    noisier = mine.noise - theirs.noise
    for name, cells, more, level in (
        ("max_gap", sorted(mine.cells | theirs.cells), 0.0, LEVEL),
        ("cell_gap", [sums.named], noisier, 0.5 + LEVEL / 2),
    ):
        if name in mine.drawn:
            by_side = [
                binomial(differ[rows][:, cells].sum(0), there[rows][:, cells].sum(0)).sum()
                for rows in sums.rows_of_sides(cells)
            ]
            least = sum(sorted(by_side)[-2:]) / 4  # of the noisiest pair
            share = sums.share[:, cells, -1].sum(1)
            se, df = jackknife(sums, whole[name], without[name], share, least)
            se = np.fmax(se, np.nanstd(mine.drawn[name] - theirs.drawn[name], ddof=1)) + 0 * se
            low = mine.above[name] + theirs.under[name] + max(more, 0.0)
            high = theirs.above[name] + mine.under[name] + max(-more, 0.0)
            differences[name] = _paired_difference(whole[name], se, df, level, low, high)
    return differences


def speakers_needed(change: PairedDifference, speakers: int) -> int | None:
    """How many such speakers would put a fall's upper bound below zero; None if there is no fall.

    If the fall stays as measured: errors, and what they raise a largest gap by, shrink with the
    square root of the number of speakers, of which there are `speakers` now.
    """
    if not change.value < 0 or not np.isfinite(change.high):
        return None
    return int(np.ceil(speakers * max((change.high - change.value) / -change.value, 1.0) ** 2))


def _paired_difference(
    value: float, se: float, df: float, level: float, under: float = 0.0, above: float = 0.0
) -> PairedDifference:
    """The difference with one-sided confidence `level` at each end, moved outwards by the bounds
    of the bias `under` and `above`."""
    se = se + 0 * (under + above)  # unknown where these are
    reach = stats.t.ppf(level, df) * se
    below = stats.t.cdf(-(value + above) / se, df)
    return PairedDifference(
        *map(float, (value, se, value - under - reach, value + above + reach, below))
    )


def _worst_cell(sums: SpeakerSums, system: str) -> int:
    gaps = metrics.gap_sizes(sums.observed(system))["avg"]
    return int(np.argmax(np.where(np.isfinite(gaps), gaps, -1.0)))


def _bias_bounds(
    sums: SpeakerSums, system: str, drawn: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """At most how much errors raise max_gap on average, and what is unseen of each cell's gap.

    The first is the mean max_gap of resampled errors alone, and no less than what its utterances
    give half of the worst cell's average. Then, [C] each, by how much the average gap could be too
    large, and too small, in differences without an interval. NaN where the accuracy of a cell has
    none.

    Args:
        drawn: [resamples, C, pairs, 2K + 2], the signed differences under the resamples.
    """
    whole, known = sums.observed(system), has_interval(sums, system)
    there = np.isfinite(metrics.gap_sizes(whole)["avg"])
    if not there.any() or not accuracy_is_known(known, whole)[there].all():
        return np.nan, np.full(len(whole), np.nan), np.full(len(whole), np.nan)
    chance = half_by_chance(sums, system)[_worst_cell(sums, system)]
    errors = max(float(np.nanmean(largest_gap(drawn - whole))), np.sqrt(2 / np.pi * chance))
    weight = np.stack([coefficients(gap) for gap in whole])
    size = np.nan_to_num(metrics.largest_difference(whole))
    unseen = np.where(all_known(known, whole), 0.0, weight)
    return errors, (unseen * size).sum(1), (unseen * (1 - size)).sum(1)
