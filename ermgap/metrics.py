"""Accuracy, weighted F1 and gender gaps of a table of per-utterance predictions.

Everything that the project reports is computed here, from predictions alone, with numpy and pandas.
All values are fractions (max_loss_gap: nats); an undefined value is NaN and never 0.
    gaps = evaluate(predictions, labels=["anger", "joy", "neutral"])["gaps"]["de/speech"]
A *cell* is `language/modality`; `overall/<modality>` pools the languages of a modality. A cell
counts for max_gap where each gender has enough utterances (`counted_cells`): with two, one of them
moves accuracy by 50 points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ermgap.config import GAP_TITLES, GENDERS, METRICS
from ermgap.counts import OVERALL, EncodedPredictions, Margins, confusions, encode

__all__ = [
    "GAPS", "OVERALL", "EncodedPredictions", "Margins", "accuracy",
    "confusions", "counted_cells", "differences", "encode", "evaluate", "gap_sizes", "gender_gaps",
    "minimum_per_side", "rates", "supported_classes", "uncounted_cells",
    "violation", "weighted_f1",
]  # fmt: skip

GAPS = tuple(name for name in GAP_TITLES if name != "avg")


def accuracy(counts: np.ndarray | Margins) -> np.ndarray:
    """Share of correct predictions, [...]; NaN where there is no utterance."""
    support, hits, _ = Margins.of(counts)
    return _ratio(hits.sum(-1), support.sum(-1))


def weighted_f1(counts: np.ndarray | Margins) -> np.ndarray:
    """F1 averaged over true labels by their support, [...]; NaN if empty.

    A class that is never predicted rightly has F1 0, as scikit-learn's `zero_division=0`.
    """
    support, hits, predicted = Margins.of(counts)
    both = support + predicted
    f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0)
    return _ratio((f1 * support).sum(-1), support.sum(-1))


def supported_classes(counts: np.ndarray | Margins, *, min_support: float) -> np.ndarray:
    """Classes [..., K] with at least `min_support` true utterances of each gender."""
    return (Margins.of(counts).support >= min_support).all(axis=-2)


def counted_cells(
    counts: np.ndarray | Margins, *, min_support: float, cell_support: float | None = None
) -> np.ndarray:
    """The cells that count for max_gap, bool [C], of counts [C, 2, K, K + 1].

    Those with at least `cell_support` utterances of each gender (None: twice `min_support`) and as
    many of the four gaps defined as any other of these: the mean of two is not compared with the
    mean of four. It depends on the true labels alone, so that it is the same for all systems.
    """
    gaps = gender_gaps(counts, classes=supported_classes(counts, min_support=min_support))
    least = minimum_per_side(min_support=min_support, cell_support=cell_support)
    return _comparable(gaps["defined"], (Margins.of(counts).support.sum(-1) >= least).all(-1))


def _comparable(defined: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """Cells [C] with enough utterances and the most defined gaps among these."""
    defined = np.where(enough, defined, 0)
    return (defined > 0) & (defined == defined.max(initial=0))


def minimum_per_side(*, min_support: float, cell_support: float | None = None) -> float:
    """How many utterances of each gender a cell needs to count for max_gap."""
    return 2 * min_support if cell_support is None else cell_support


def uncounted_cells(
    gaps: Mapping[str, Mapping], *, min_support: float, cell_support: float | None = None
) -> dict[str, str]:
    """The cells that do not count for max_gap, with a phrase on their numbers of utterances.

    Args:
        gaps: as from `evaluate`; those that pool cells are ignored.
    """
    least = minimum_per_side(min_support=min_support, cell_support=cell_support)
    cells = {name: gap for name, gap in gaps.items() if name.split("/", 1)[0] != OVERALL}
    enough = [min(gap["n_female"], gap["n_male"]) >= least for gap in cells.values()]
    defined = np.array([gap["defined"] for gap in cells.values()])
    comparable = _comparable(defined, np.array(enough, bool))
    return {
        name: f"{gap['n_female']} female and {gap['n_male']} male utterances, {gap['defined']} of "
        f"{len(GAPS)} gaps defined"
        for (name, gap), counted in zip(cells.items(), comparable, strict=True)
        if not counted
    }


def rates(
    counts: np.ndarray | Margins, *, classes: np.ndarray, cells: np.ndarray | None = None
) -> np.ndarray:
    """The rates that the gaps compare, by gender [..., 2, 2K + 2] of counts [..., 2, K, K + 1].

    TPR a class, FPR a class, W-F1, accuracy. NaN where undefined; a class that is not one of
    `classes` (bool [..., K]) is, and so is all of a cell that is not one of `cells` (bool [...]).
    """
    support, hits, predicted = Margins.of(counts)
    n, used = support.sum(-1, keepdims=True), classes[..., None, :]
    result = np.concatenate(
        [
            np.where(used, _ratio(hits, support), np.nan),
            np.where(used, _ratio(predicted - hits, n - support), np.nan),
            weighted_f1(counts)[..., None],
            accuracy(counts)[..., None],
        ],
        axis=-1,
    )
    return result if cells is None else np.where(cells[..., None, None], result, np.nan)


def differences(rates: np.ndarray) -> np.ndarray:
    """Female less male [..., 2K + 2] of rates [..., 2, 2K + 2]."""
    return rates[..., 0, :] - rates[..., 1, :]


def gap_sizes(signed: np.ndarray) -> dict[str, np.ndarray]:
    """The gaps that differences of `rates` [..., 2K + 2] amount to, each [...].

    `tpr` and `fpr` are means of |difference| over classes, `w_f1` and `acc` absolute differences,
    `avg` the mean of those defined (arXiv 2603.21050) and `defined` their number, 0 to 4. `avg` is
    a seminorm of the differences.
    """
    absolute, k = np.abs(signed), (signed.shape[-1] - 2) // 2
    gaps = {
        "tpr": _mean(absolute[..., :k]),
        "fpr": _mean(absolute[..., k : 2 * k]),
        "w_f1": absolute[..., -2],
        "acc": absolute[..., -1],
    }
    stack = np.stack([gaps[name] for name in GAPS], axis=-1)
    return gaps | {"avg": _mean(stack), "defined": np.isfinite(stack).sum(-1)}


def gender_gaps(counts: np.ndarray | Margins, *, classes: np.ndarray) -> dict[str, np.ndarray]:
    """`gap_sizes` of the female-male differences of counts [..., 2, K, K + 1].

    A class enters where it is one of `classes` (bool [..., K]) and its rate exists for both.
    """
    return gap_sizes(differences(rates(counts, classes=classes)))


def evaluate(
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    min_support: int = 5,
    cell_support: int | None = None,
) -> dict[str, object]:
    """Every number that one set of predictions gives, as plain Python values.

    Args:
        predictions: one row an utterance: language, modality, gender (female, male), label,
            prediction (another word than a label counts as wrong) and, for `max_loss_gap`,
            `logp_<label>` of each label in nats.
        labels: the K class names.
        min_support: a class enters the TPR and FPR gaps of a cell when each gender has at least
            that many true utterances of it there (the paper's table: 1).
        cell_support: a cell counts for the maxima when each gender has at least that many
            utterances there, and a group (a gender in a cell) for the worst group when it has
            (None: twice `min_support`); see `counted_cells`.

    Returns acc, w_f1 (pooled over everything), max_gap (largest `avg` over the cells that count)
    and its worst_cell, the numbers of `cells` and of `cells_counted`, worst_group_w_f1 (smallest
    W-F1 of a group that counts) and that worst_group, max_loss_gap (largest
    |mean(-logp_true)_F - mean(-logp_true)_M| over the cells that count), n, majority_rate and
    majority_w_f1 (of always answering the commonest label), and gaps: per cell and for
    `overall/<modality>` the keys of `gender_gaps` plus classes, n_female and n_male, and per cell
    whether it `counts`. Without a cell that counts the maxima are NaN.
    Raises UserError for a table that cannot be read.
    """
    encoded = encode(predictions, labels=labels)
    counts = confusions(encoded)
    names, pooled = _with_overall(encoded.cells, counts)
    gaps = _gaps_by_cell(names, pooled, min_support=min_support)
    least = minimum_per_side(min_support=min_support, cell_support=cell_support)
    enough = counts.sum((-2, -1)) >= least  # bool [C, 2]
    defined = np.array([gaps[name]["defined"] for name in encoded.cells])
    cells = _comparable(defined, enough.all(-1))
    for name, counted in zip(encoded.cells, cells, strict=True):
        gaps[name]["counts"] = bool(counted)
    averages = np.array([gaps[name]["avg"] for name in encoded.cells])
    worst_cell, max_gap = _extreme(encoded.cells, np.where(cells, averages, np.nan))
    scores = np.where(enough, weighted_f1(counts), np.nan)
    group_names = [f"{cell}/{gender}" for cell in encoded.cells for gender in GENDERS]
    worst_group, lowest = _extreme(group_names, -scores.ravel())
    everything = counts.sum((0, 1))
    rate = float(_ratio(everything.sum(-1).max(), everything.sum()))
    losses = np.where(cells, _loss_gaps(predictions, encoded, labels), np.nan)
    return {
        "acc": float(accuracy(everything)),
        "w_f1": float(weighted_f1(everything)),
        "max_gap": max_gap,
        "worst_cell": worst_cell,
        "cells": len(cells),
        "cells_counted": int(cells.sum()),
        "worst_group_w_f1": -lowest,
        "worst_group": worst_group,
        "max_loss_gap": _extreme(encoded.cells, losses)[1],
        "n": len(predictions),
        "majority_rate": rate,
        "majority_w_f1": rate * 2 * rate / (1 + rate),
        "gaps": gaps,
    }


def violation(name: str, value: float | None, limit: float) -> float:
    """By how much a metric misses its limit, in its own unit; negative or 0 where it keeps it.

    The limit is a gap's largest value, and the least of every other metric. An undefined metric
    misses its limit by 1.
    """
    if value is None or not np.isfinite(value):
        return 1.0
    return float(value - limit if METRICS[name].direction == "min" else limit - value)


def _with_overall(cells: Sequence[str], counts: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The cells followed by one `overall/<modality>` a modality, whose counts are summed."""
    modalities = np.array([cell.split("/", 1)[1] for cell in cells], dtype=object)
    unique = sorted(set(modalities))
    sums = [counts[modalities == modality].sum(0) for modality in unique]
    names = [*cells, *(f"{OVERALL}/{modality}" for modality in unique)]
    return names, np.concatenate([counts, np.reshape(sums, (-1, *counts.shape[1:]))])


def _gaps_by_cell(names: Sequence[str], counts: np.ndarray, *, min_support: int) -> dict:
    classes = supported_classes(counts, min_support=min_support)
    gaps = gender_gaps(counts, classes=classes)
    n = counts.sum((-2, -1)).astype(int)
    integers = {"defined": gaps.pop("defined"), "classes": classes.sum(-1)}
    integers |= {"n_female": n[:, 0], "n_male": n[:, 1]}
    return {
        name: {key: float(value[i]) for key, value in gaps.items()}
        | {key: int(value[i]) for key, value in integers.items()}
        for i, name in enumerate(names)
    }


def _loss_gaps(
    predictions: pd.DataFrame, encoded: EncodedPredictions, labels: Sequence[str]
) -> np.ndarray:
    """|mean loss of females - of males| per cell [cells]; NaN without `logp_` columns."""
    columns = [f"logp_{label}" for label in labels]
    if not set(columns) <= set(predictions.columns):
        return np.full(len(encoded.cells), np.nan)
    logp = predictions[columns].to_numpy(dtype=float)
    loss = -np.take_along_axis(logp, encoded.label[:, None], axis=1)[:, 0]
    group, size = encoded.cell * 2 + encoded.gender, 2 * len(encoded.cells)
    sums = np.bincount(group, weights=loss, minlength=size)
    means = _ratio(sums, np.bincount(group, minlength=size)).reshape(-1, 2)
    return np.abs(means[:, 0] - means[:, 1])


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    return _ratio(np.where(finite, values, 0.0).sum(-1), finite.sum(-1))


def _extreme(names: Sequence[str], values: Sequence[float]) -> tuple[str | None, float]:
    """The name and value of the largest finite value; (None, NaN) without one."""
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).any():
        return None, float("nan")
    best = int(np.nanargmax(values))
    return names[best], float(values[best])
