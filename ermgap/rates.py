"""The rates that gaps compare, from counts of predictions: numpy alone, any leading axes.

    compared = Compared.of(counts, min_support=5)             # counts [C, S, K, K + 1]
    by_side = rates(counts, classes=compared.classes, sides=compared.sides)
    gap_sizes(differences(by_side))["avg"]                    # [C]

All values are fractions; an undefined value is NaN and never 0. `ermgap.metrics` re-exports all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ermgap.config import GAP_TITLES
from ermgap.counts import Margins

GAPS = tuple(name for name in GAP_TITLES if name != "avg")


def accuracy(counts: np.ndarray | Margins) -> np.ndarray:
    """Share of correct predictions, [...]; NaN where there is no utterance."""
    support, hits, _ = Margins.of(counts)
    return ratio(hits.sum(-1), support.sum(-1))


def weighted_f1(counts: np.ndarray | Margins) -> np.ndarray:
    """F1 averaged over true labels by their support, [...]; NaN if empty.

    A class that is never predicted rightly has F1 0, as scikit-learn's `zero_division=0`.
    """
    support, hits, predicted = Margins.of(counts)
    both = support + predicted
    f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0)
    return ratio((f1 * support).sum(-1), support.sum(-1))


@dataclass(frozen=True, eq=False)
class Compared:
    """Which sides, classes and cells the gaps compare.

    A side is compared in a cell where it has at least `cell_support` utterances (None: twice
    `min_support`) and `speaker_support` speakers there; with two, one of them moves accuracy by 50
    points. A cell counts for max_gap with two such sides and as many of the four gaps defined as
    any other: the mean of two is not compared with the mean of four. In a cell without two such
    sides all are measured. A class enters the TPR and FPR gaps with the compared sides that have
    `min_support` true utterances of it, if these are two. All this depends on the true labels
    alone, so that it is the same for all systems.

    Attributes:
        sides: bool [C, S]. classes: bool [C, S, K].
        counted: bool [C], cells that count for max_gap.
    """

    sides: np.ndarray
    classes: np.ndarray
    counted: np.ndarray

    @classmethod
    def of(
        cls,
        counts: np.ndarray | Margins,
        *,
        min_support: float = 5,
        cell_support: float | None = None,
        speaker_support: int = 1,
        speakers: np.ndarray | None = None,
    ) -> Compared:
        """Of counts [C, S, K, K + 1].

        Args:
            speakers: of each side, [C, S]; None where nothing is asked of them.
        """
        support = Margins.of(counts).support
        least = minimum_per_side(min_support=min_support, cell_support=cell_support)
        enough = support.sum(-1) >= least
        if speakers is not None:
            enough &= speakers >= speaker_support
        estimable = enough.sum(-1) >= 2
        sides = enough | ~estimable[:, None]
        classes = (support >= min_support) & sides[..., None]
        classes &= classes.sum(-2, keepdims=True) >= 2
        truth = Margins(support, support, support)  # which gaps are defined depends on it alone
        signed = differences(rates(truth, classes=classes, sides=sides))
        defined = gap_sizes(signed)["defined"]
        return cls(sides, classes, comparable(defined, estimable))


def comparable(defined: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """Cells [C] with enough utterances and the most defined gaps among these."""
    defined = np.where(enough, defined, 0)
    return (defined > 0) & (defined == defined.max(initial=0))


def minimum_per_side(*, min_support: float, cell_support: float | None = None) -> float:
    """How many utterances a side needs to be compared in a cell."""
    return 2 * min_support if cell_support is None else cell_support


def rates(
    counts: np.ndarray | Margins,
    *,
    classes: np.ndarray,
    sides: np.ndarray,
    cells: np.ndarray | None = None,
) -> np.ndarray:
    """The rates that the gaps compare, by side [..., S, 2K + 2] of counts [..., S, K, K + 1].

    TPR a class, FPR a class, W-F1, accuracy. NaN where undefined; a class that is not one of
    `classes` (bool [..., S, K]) is, and so is all of a side that is not one of `sides` (bool
    [..., S]) and of a cell that is not one of `cells` (bool [...]).
    """
    support, hits, predicted = Margins.of(counts)
    n = support.sum(-1, keepdims=True)
    result = np.concatenate(
        [
            np.where(classes, ratio(hits, support), np.nan),
            np.where(classes, ratio(predicted - hits, n - support), np.nan),
            np.where(sides, weighted_f1(counts), np.nan)[..., None],
            np.where(sides, accuracy(counts), np.nan)[..., None],
        ],
        axis=-1,
    )
    return result if cells is None else np.where(cells[..., None, None], result, np.nan)


def pairs(sides: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the first and the second side of each of the S (S - 1) / 2 pairs."""
    return np.triu_indices(sides, 1)


def differences(rates: np.ndarray) -> np.ndarray:
    """First less second side of each pair, [..., pairs, 2K + 2], of rates [..., S, 2K + 2]."""
    first, second = pairs(rates.shape[-2])
    return rates[..., first, :] - rates[..., second, :]


def largest_difference(signed: np.ndarray) -> np.ndarray:
    """max - min over sides [..., 2K + 2] of `differences` [..., pairs, 2K + 2]."""
    return np.fmax.reduce(np.abs(signed), axis=-2, initial=np.nan)


def gap_sizes(signed: np.ndarray) -> dict[str, np.ndarray]:
    """The gaps that `differences` [..., pairs, 2K + 2] amount to, each [...].

    `tpr` and `fpr` are means over classes of the largest difference, `w_f1` and `acc` the largest
    differences, `avg` the mean of those defined (arXiv 2603.21050) and `defined` their number, 0
    to 4. `avg` is a seminorm of the differences.
    """
    size = largest_difference(signed)
    k = (size.shape[-1] - 2) // 2
    gaps = {
        "tpr": _mean(size[..., :k]),
        "fpr": _mean(size[..., k : 2 * k]),
        "w_f1": size[..., -2],
        "acc": size[..., -1],
    }
    stack = np.stack([gaps[name] for name in GAPS], axis=-1)
    return gaps | {"avg": _mean(stack), "defined": np.isfinite(stack).sum(-1)}


def largest_gap(signed: np.ndarray) -> np.ndarray:
    """max_gap [...] of signed gaps [..., C, pairs, 2K + 2], the largest average; NaN if undefined.

    A seminorm, as a maximum of seminorms is.
    """
    gap = gap_sizes(signed)["avg"]
    worst = np.where(np.isfinite(gap), gap, -np.inf).max(-1)
    return np.where(np.isfinite(worst), worst, np.nan)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, [...]; NaN where `bottom` is 0."""
    top, bottom = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    return ratio(np.where(finite, values, 0.0).sum(-1), finite.sum(-1))
