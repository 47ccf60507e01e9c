"""Accuracy, weighted F1 and the gaps between sides of a table of per-utterance predictions.

Everything that the project reports is computed here, from predictions alone, with numpy and pandas.
All values are fractions (max_loss_gap: nats); an undefined value is NaN and never 0.
    gaps = evaluate(predictions, labels=["anger", "joy", "neutral"])["gaps"]["de/speech"]
A *cell* is `language/modality`; `overall/<modality>` pools the languages of a modality. A *side* is
a value of the sensitive attribute (gender by default); a gap is the largest difference between two
sides, max - min. `Compared` says which sides, classes and cells have enough utterances for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ermgap.config import GENDER, METRICS
from ermgap.counts import OVERALL, EncodedPredictions, Margins, confusions, encode
from ermgap.errors import UserError
from ermgap.rates import (
    GAPS,
    Compared,
    accuracy,
    comparable,
    differences,
    gap_sizes,
    largest_difference,
    largest_gap,
    minimum_per_side,
    pairs,
    rates,
    ratio,
    weighted_f1,
)

__all__ = [
    "GAPS", "OVERALL", "Compared", "EncodedPredictions", "Margins", "accuracy", "confusions",
    "differences", "encode", "evaluate", "gap_sizes", "largest_difference", "largest_gap",
    "listed", "minimum_per_side", "pairs", "rates", "side_counts", "speakers_of_sides",
    "uncounted_cells", "violation", "weighted_f1",
]  # fmt: skip

_COUNT = "n_"  # before a side's name: the key of its number of utterances


def side_counts(gap: Mapping[str, object]) -> dict[str, int]:
    """Utterances by side of one cell's gaps as from `evaluate`."""
    return {key.removeprefix(_COUNT): n for key, n in gap.items() if key.startswith(_COUNT)}


def uncounted_cells(
    gaps: Mapping[str, Mapping], *, min_support: float = 5, cell_support: float | None = None
) -> dict[str, str]:
    """The cells that do not count for max_gap, with a phrase on their numbers of utterances.

    Args:
        gaps: as from `evaluate`; those that pool cells are ignored.
        min_support, cell_support: by which cells are judged that were recorded before this rule.
    """
    cells = {name: gap for name, gap in gaps.items() if name.split("/", 1)[0] != OVERALL}
    least = minimum_per_side(min_support=min_support, cell_support=cell_support)
    enough = [sorted(side_counts(gap).values())[-2:][0] >= least for gap in cells.values()]
    defined = np.array([gap["defined"] for gap in cells.values()])
    by_rule = comparable(defined, np.array(enough, bool))
    return {
        name: f"{listed(side_counts(gap))} utterances, {gap['defined']} of {len(GAPS)} gaps defined"
        for (name, gap), counts in zip(cells.items(), by_rule, strict=True)
        if not gap.get("counts", counts)
    }


def listed(counts: Mapping[str, int]) -> str:
    """Numbers of utterances by side in words: `12 female and 9 male`."""
    phrases = [f"{n:g} {side}" for side, n in counts.items()]
    return " and ".join(filter(None, [", ".join(phrases[:-1]), *phrases[-1:]]))


def evaluate(
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    attribute: Sequence[str] = (GENDER,),
    min_support: int = 5,
    cell_support: int | None = None,
    speaker_support: int = 1,
) -> dict[str, object]:
    """Every number that one set of predictions gives, as plain Python values.

    Args:
        predictions: one row an utterance: language, modality, the attribute, label, prediction
            (another word than a label counts as wrong), speaker where `speaker_support` is above 1
            and, for `max_loss_gap`, `logp_<label>` of each label in nats.
        labels: the K class names.
        attribute: columns of the sensitive attribute; several are crossed. An utterance whose side
            is unknown (empty) counts for acc and w_f1 alone.
        min_support, cell_support, speaker_support: what a class and a side need to be compared,
            see `Compared` (the paper's table: min_support 1).

    Returns acc, w_f1 (pooled over everything), max_gap (largest `avg` over the cells that count)
    and its worst_cell, the numbers of `cells` and of `cells_counted`, worst_group_w_f1 (smallest
    W-F1 of a group, a side in a cell, that has `cell_support` utterances) and that worst_group,
    max_loss_gap (largest difference between two sides' mean(-logp_true) over the cells that count),
    n, majority_rate and majority_w_f1 (of always answering the commonest label), and gaps: per cell
    and for `overall/<modality>` the keys of `gap_sizes` plus classes (that enter the TPR and FPR
    gaps) and n_<side> of each side, and per cell whether it `counts`. Without a cell that counts
    the maxima are NaN.
    Raises UserError for a table that cannot be read.
    """
    encoded = encode(predictions, labels=labels, attribute=attribute)
    counts, unknown = confusions(encoded)
    support = {"min_support": min_support, "cell_support": cell_support}
    speakers = None
    if speaker_support > 1:
        support["speaker_support"] = speaker_support
        speakers = speakers_of_sides(predictions, encoded)
    compared = Compared.of(counts, **support, speakers=speakers)
    gaps = _gaps_by_cell(encoded.cells, encoded.sides, counts, compared)
    for name, counted in zip(encoded.cells, compared.counted, strict=True):
        gaps[name]["counts"] = bool(counted)
    names, pooled, heard = _pooled(encoded.cells, counts, speakers)
    pool = Compared.of(pooled, **support, speakers=heard)
    gaps |= _gaps_by_cell(names, encoded.sides, pooled, pool)
    averages = np.array([gaps[name]["avg"] for name in encoded.cells])
    worst_cell, max_gap = _extreme(encoded.cells, np.where(compared.counted, averages, np.nan))
    least = minimum_per_side(min_support=min_support, cell_support=cell_support)
    scores = np.where(counts.sum((-2, -1)) >= least, weighted_f1(counts), np.nan)
    group_names = [f"{cell}/{side}" for cell in encoded.cells for side in encoded.sides]
    worst_group, lowest = _extreme(group_names, -scores.ravel())
    everything = counts.sum((0, 1)) + unknown.sum(0)
    rate = float(ratio(everything.sum(-1).max(), everything.sum()))
    losses = _loss_gaps(predictions, encoded, labels, compared.sides)
    return {
        "acc": float(accuracy(everything)),
        "w_f1": float(weighted_f1(everything)),
        "max_gap": max_gap,
        "worst_cell": worst_cell,
        "cells": len(encoded.cells),
        "cells_counted": int(compared.counted.sum()),
        "worst_group_w_f1": -lowest,
        "worst_group": worst_group,
        "max_loss_gap": _extreme(encoded.cells, np.where(compared.counted, losses, np.nan))[1],
        "n": len(predictions),
        "majority_rate": rate,
        "majority_w_f1": rate * 2 * rate / (1 + rate),
        "gaps": gaps,
    }


def speakers_of_sides(predictions: pd.DataFrame, encoded: EncodedPredictions) -> np.ndarray:
    """Distinct speakers of each side, [C, S] int; UserError without a column of speakers."""
    if "speaker" not in predictions:
        raise UserError(
            "the predictions lack the column speaker, by which a side's speakers are counted; give "
            "a table as written in predictions/<trial_id>.parquet."
        )
    speaker = pd.factorize(predictions["speaker"])[0]
    shape = (len(encoded.cells), len(encoded.sides) + 1, max(len(predictions), 1))
    heard = np.zeros(shape[:2], int)
    cell, side, _ = np.unravel_index(
        np.unique(np.ravel_multi_index((encoded.cell, encoded.side, speaker), shape)), shape
    )
    np.add.at(heard, (cell, side), 1)
    return heard[:, :-1]


def violation(name: str, value: float | None, limit: float) -> float:
    """By how much a metric misses its limit, in its own unit; negative or 0 where it keeps it.

    The limit is a gap's largest value, and the least of every other metric. An undefined metric
    misses its limit by 1.
    """
    if value is None or not np.isfinite(value):
        return 1.0
    return float(value - limit if METRICS[name].direction == "min" else limit - value)


def _pooled(
    cells: Sequence[str], counts: np.ndarray, speakers: np.ndarray | None
) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """`overall/<modality>` of each modality, and its sums of counts and of speakers."""
    modalities = np.array([cell.split("/", 1)[1] for cell in cells], dtype=object)
    unique = sorted(set(modalities))

    def sums(values: np.ndarray) -> np.ndarray:
        parts = [values[modalities == modality].sum(0) for modality in unique]
        return np.reshape(parts, (-1, *values.shape[1:]))

    names = [f"{OVERALL}/{modality}" for modality in unique]
    return names, sums(counts), None if speakers is None else sums(speakers)


def _gaps_by_cell(
    names: Sequence[str], sides: Sequence[str], counts: np.ndarray, compared: Compared
) -> dict:
    classes = compared.classes
    gaps = gap_sizes(differences(rates(counts, classes=classes, sides=compared.sides)))
    n = counts.sum((-2, -1)).astype(int)
    integers = {"defined": gaps.pop("defined"), "classes": classes.any(-2).sum(-1)}
    integers |= {f"{_COUNT}{side}": n[:, place] for place, side in enumerate(sides)}
    return {
        name: {key: float(value[i]) for key, value in gaps.items()}
        | {key: int(value[i]) for key, value in integers.items()}
        for i, name in enumerate(names)
    }


def _loss_gaps(
    predictions: pd.DataFrame,
    encoded: EncodedPredictions,
    labels: Sequence[str],
    compared: np.ndarray,
) -> np.ndarray:
    """Largest difference between mean losses of `compared` sides, [cells]; NaN without `logp_`."""
    columns = [f"logp_{label}" for label in labels]
    if not set(columns) <= set(predictions.columns):
        return np.full(len(encoded.cells), np.nan)
    logp = predictions[columns].to_numpy(dtype=float)
    loss = -np.take_along_axis(logp, encoded.label[:, None], axis=1)[:, 0]
    width = len(encoded.sides) + 1
    group, size = encoded.cell * width + encoded.side, width * len(encoded.cells)
    sums = np.bincount(group, weights=loss, minlength=size)
    means = ratio(sums, np.bincount(group, minlength=size)).reshape(-1, width)[:, :-1]
    means = np.where(compared, means, np.nan)
    return largest_difference(differences(means[..., None]))[..., 0]


def _extreme(names: Sequence[str], values: Sequence[float]) -> tuple[str | None, float]:
    """The name and value of the largest finite value; (None, NaN) without one."""
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).any():
        return None, float("nan")
    best = int(np.nanargmax(values))
    return names[best], float(values[best])
