"""The units of predictions that are resampled: speakers within a language and side.

table, coded = ordered(table, labels, ("gender",))
units, unit = units_of(table, ("gender",))      # a row a unit; the unit of each prediction
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ermgap import attributes, metrics
from ermgap.config import GENDER
from ermgap.errors import UserError
from ermgap.metrics import Margins

SPEAKER = ["corpus", "speaker"]


def ordered(
    table: pd.DataFrame,
    labels: Sequence[str],
    attribute: Sequence[str] = (GENDER,),
    sides: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, metrics.EncodedPredictions]:
    """A table in the order of its utterances, and its predictions as numbers."""
    keys = ["utterance_id", "modality"]
    needed = [*keys, "speaker", *attribute, "language"]
    if missing := [name for name in needed if name not in table]:
        raise UserError(
            f"the predictions lack the column(s) {', '.join(missing)}; "
            "give a table as written in predictions/<trial_id>.parquet."
        )
    table = table.sort_values(keys, kind="stable", ignore_index=True)
    return table, metrics.encode(table, labels=labels, attribute=attribute, sides=sides)


def units_of(
    table: pd.DataFrame, attribute: Sequence[str] = (GENDER,)
) -> tuple[pd.DataFrame, np.ndarray]:
    """The units of predictions, and the unit of each row (int [n]).

    A row a unit: language (of its cells), side, stratum and speaker (integers), size (utterances,
    all modalities) and is_lone, whether its stratum has a single speaker.
    """
    table = table.assign(
        language=attributes.cell_languages(table, attribute),
        side=attributes.values(table, attribute),
    )
    speaker = [name for name in SPEAKER if name in table]
    stratum = table.groupby(["language", "side"], sort=True).ngroup().to_numpy()
    who = table.groupby(["language", "side", *speaker], sort=True).ngroup().to_numpy()
    is_lone = pd.Series(who).groupby(stratum).transform("nunique").to_numpy() == 1
    # An utterance that is asked in two modalities is one unit.
    utterance = pd.factorize(table["utterance_id"])[0]
    key = np.where(is_lone, len(table) + utterance, who)
    _, first, unit = np.unique(key, return_index=True, return_inverse=True)
    units = table.loc[first, ["language", "side"]].reset_index(drop=True)
    speaker, columns = pd.factorize(who[first])[0], {"stratum": stratum, "is_lone": is_lone}
    columns = {name: column[first] for name, column in columns.items()}
    return units.assign(**columns, speaker=speaker, size=np.bincount(unit)), unit


def sums_of(
    coded: metrics.EncodedPredictions, unit: np.ndarray, units: int
) -> tuple[np.ndarray, np.ndarray]:
    """Margins of every unit [U, C, K, 3], and confusions [C, K, K + 1]."""
    shape = (units, len(coded.cells), coded.classes, coded.classes + 1)
    flat = np.ravel_multi_index((unit, coded.cell, coded.label, coded.prediction), shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(float)
    return np.stack(Margins.of(counts), -1), counts.sum(0)
