"""Encodes predictions as integers, and counts them: every metric is computed from the counts.

    encoded = encode(predictions, labels=["anger", "joy", "neutral"])
    counts, unknown = confusions(encoded)   # [cells, sides, 3 labels, 4 predictions] of each side

A *cell* is `language/modality`, a *side* the value of a sensitive attribute (ermgap.attributes).
`ermgap.metrics` re-exports all of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from ermgap import attributes
from ermgap.config import GENDER
from ermgap.errors import UserError

OVERALL = "overall"  # in the place of a language: all languages together


@dataclass(frozen=True)
class EncodedPredictions:
    """Predictions as integer codes.

    `cells` names the cells and `cell` [n] indexes them; `sides` names the S sides, and `side` [n]
    is in 0..S, S standing for an unknown one; `label` [n] is in 0..K-1; `prediction` [n] is in
    0..K, K standing for "none of the labels".
    """

    cells: tuple[str, ...]
    sides: tuple[str, ...]
    cell: np.ndarray
    side: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    classes: int


class Margins(NamedTuple):
    """Sums of confusion counts by class: true utterances, hits and predictions.

    Each is float [..., K]. The scores take these or counts [..., K, K + 1].
    """

    support: np.ndarray
    hits: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray | Margins) -> Margins:
        """The margins of counts [..., K, K + 1]; margins as they are."""
        if isinstance(counts, Margins):
            return counts
        hits = np.diagonal(counts, axis1=-2, axis2=-1)
        return cls(counts.sum(-1), hits, counts.sum(-2)[..., :-1])


def encode(
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    attribute: Sequence[str] = (GENDER,),
    sides: Sequence[str] | None = None,
) -> EncodedPredictions:
    """Turn a predictions table (columns language, modality, label, prediction) into codes.

    Args:
        attribute: the columns that divide the predictions into sides; more than one are crossed.
        sides: their order; None: `attributes.sides` of the predictions.

    Raises UserError for a missing column, a true label outside `labels`, or a language that no
    cell can be named by.
    """
    needed = ("language", "modality", *attribute, "label", "prediction")
    if missing := [column for column in needed if column not in predictions]:
        raise UserError(
            f"the predictions lack the column(s) {', '.join(missing)}; "
            "give a table as written in predictions/<trial_id>.parquet."
        )
    if predictions[["language", "modality"]].isna().any(axis=None):
        raise UserError("a row of the predictions has no language or modality; fill in every row.")
    names = attributes.cell_languages(predictions, attribute)
    language, languages = pd.factorize(names, sort=True)
    for name in languages:
        if name == OVERALL or "/" in str(name):
            raise UserError(
                f"the predictions have the language {name!r}, which would name another cell; write "
                "two letters of ISO 639-1, such as de."
            )
    modality, modalities = pd.factorize(predictions["modality"], sort=True)
    pairs, cell = np.unique(language * max(len(modalities), 1) + modality, return_inverse=True)
    names = [f"{languages[p // len(modalities)]}/{modalities[p % len(modalities)]}" for p in pairs]
    sides = attributes.sides(predictions, attribute) if sides is None else tuple(sides)
    predicted = pd.Index(labels).get_indexer(predictions["prediction"])
    return EncodedPredictions(
        cells=tuple(names),
        sides=sides,
        cell=cell,
        side=attributes.codes(predictions, attribute, sides),
        label=_codes(predictions["label"], labels),
        prediction=np.where(predicted < 0, len(labels), predicted),
        classes=len(labels),
    )


def _codes(column: pd.Series, names: Sequence[str]) -> np.ndarray:
    codes = pd.Index(names).get_indexer(column)
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise UserError(
            f"row {row} of the predictions has the {column.name} {column.iloc[row]!r}, "
            f"which is not one of {', '.join(names)}; correct it or remove the row."
        )
    return codes


def confusions(encoded: EncodedPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Counts [C, S, K true labels, K + 1 predictions], and those of unknown side [C, K, K + 1]."""
    shape = (len(encoded.cells), len(encoded.sides) + 1, encoded.classes, encoded.classes + 1)
    index = (encoded.cell, encoded.side, encoded.label, encoded.prediction)
    flat = np.ravel_multi_index(index, shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(float)
    return counts[:, :-1], counts[:, -1]
