"""Sensitive attributes: columns of a table of utterances or predictions, and their sides.

    names = sides(table, ("gender",))                  # ("female", "male")
    side = codes(table, ("gender",), names)            # [n] int64, len(names) where it is unknown

An attribute is named by its columns: one, or several that are crossed, with all combinations that
occur as sides (`female & young`). A value is kept as given; an empty one is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ermgap.config import GENDER, GENDERS, NO_ATTRIBUTES
from ermgap.errors import UserError

UNKNOWN = ""
CROSSED = " & "
RESERVED = NO_ATTRIBUTES | {"language", "corpus"}  # columns that every table has in any case
ALL = "all"  # in the place of a language, where languages are compared with one another


def title(attribute: Sequence[str]) -> str:
    """The attribute's name on pages, such as `gender & accent`."""
    return CROSSED.join(attribute)


def columns(table: pd.DataFrame) -> tuple[str, ...]:
    """The attributes of a table of utterances or predictions, but for language and corpus."""
    return tuple(
        name for name in table.columns if name not in RESERVED and not name.startswith("logp_")
    )


def values(table: pd.DataFrame, attribute: Sequence[str]) -> pd.Series:
    """The side of each row, as text; UNKNOWN where one of the crossed columns is.

    Raises UserError for a column that the table lacks.
    """
    if missing := [name for name in attribute if name not in table]:
        raise UserError(
            f"there is no attribute {missing[0]!r} in the table: add a column group:{missing[0]} "
            "to the manifest, or name another under objective.attribute."
        )
    columns = [table[name].fillna(UNKNOWN).astype(str) for name in attribute]
    joined = columns[0]
    for column in columns[1:]:
        known = (joined != UNKNOWN) & (column != UNKNOWN)
        joined = (joined + CROSSED + column).where(known, UNKNOWN)
    return joined


def sides(table: pd.DataFrame, attribute: Sequence[str]) -> tuple[str, ...]:
    """The known values in alphabetical order; of gender female and male in any case."""
    always = GENDERS if tuple(attribute) == (GENDER,) else ()
    return tuple(sorted({*always, *values(table, attribute)} - {UNKNOWN}))


def codes(table: pd.DataFrame, attribute: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Index of each row's side in `names`, [n] int64; len(names) where it is none of them."""
    return index(values(table, attribute), names)


def index(values: pd.Series, names: Sequence[str]) -> np.ndarray:
    """Index of each value in `names`, [n] int64; len(names) where it is none of them."""
    place = pd.Index(names, dtype=object).get_indexer(values)
    return np.where(place < 0, len(names), place).astype(np.int64)


def cell_sides(
    table: pd.DataFrame, attribute: Sequence[str], *, unknown: bool = False
) -> dict[str, tuple[str, ...]]:
    """The sides that occur in the cells of each language; of gender female and male in any case.

    `unknown`: with UNKNOWN, as the last, where it occurs.
    """
    always = GENDERS if tuple(attribute) == (GENDER,) else ()
    present = values(table, attribute).groupby(cell_languages(table, attribute)).unique()
    return {
        language: tuple(sorted({*always, *names} - {UNKNOWN}))
        + (UNKNOWN,) * (unknown and UNKNOWN in names)
        for language, names in present.items()
    }


def cell_languages(table: pd.DataFrame, attribute: Sequence[str]) -> pd.Series:
    """The language of each row's cell: ALL where language is part of the attribute.

    Sides of different languages can be compared only in a cell that holds several.
    """
    return pd.Series(ALL, table.index) if "language" in attribute else table["language"]
