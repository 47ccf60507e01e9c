"""The table of utterances: its columns, checks and counts, and the text that describes it.

One row is one utterance. Every loader returns a `Corpus`, whose table `frame` builds from dicts.
Attributes of people beside gender are further columns of text; "" is unknown in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ermgap import attributes as attribute_of
from ermgap.attributes import UNKNOWN
from ermgap.config import GENDER, one_line, quoted
from ermgap.corpora import attribute_values
from ermgap.corpora import rows as row_values
from ermgap.errors import UserError
from ermgap.records.files import escape_undecodable

COLUMNS = (
    "utterance_id", "corpus", "language", "gender", "emotion", "speaker", "group", "split",
    "path", "start_s", "end_s", "transcript", "synthetic",
)  # fmt: skip
EXCLUDED = ("corpus", "path", "reason")
SPLITS = ("train", "dev", "test")
_KEYS = ["split", "language", "side"]  # of a table of counts
_NEVER_BLANK = ("utterance_id", "corpus", "emotion", "speaker", "group", "path")
_DEFAULTS = {
    "gender": UNKNOWN, "split": "", "start_s": 0.0, "end_s": np.nan, "transcript": "",
    "synthetic": False,
}  # fmt: skip


def excluded_frame(rows: Sequence[Mapping] | pd.DataFrame) -> pd.DataFrame:
    """Exclusions (corpus, path, reason) as a frame of these columns alone, rows counted anew."""
    frame = rows if isinstance(rows, pd.DataFrame) else text_frame(rows)
    if frame.empty:
        frame = pd.DataFrame(columns=list(EXCLUDED))
    return frame[list(EXCLUDED)].astype(str).reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Corpus:
    """What a loader returns: a table with COLUMNS, exclusions with EXCLUDED, and notes to print.

    `split` may be "" (then `split.assign` fills it), `end_s` may be NaN (the end of the file).
    Further columns of text are attributes. `provenance` says where an attribute's values come from,
    one of PROVENANCES, if that is known (of several corpora joined: a text that names them).
    """

    table: pd.DataFrame
    excluded: pd.DataFrame = field(default_factory=lambda: excluded_frame([]))
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)


def frame(rows: Sequence[Mapping], *, attributes: Sequence[str] = ()) -> pd.DataFrame:
    """A table with COLUMNS and their dtypes (str, float64 seconds, bool) from one dict a row.

    Absent keys become: an attribute "", `split` "", `start_s` 0, `end_s` NaN, `transcript` "",
    `synthetic` False, `group` the speaker. Raises KeyError when another column is absent.
    """
    table = text_frame(rows)
    further = [name for name in attributes if name not in COLUMNS]
    for column, value in (_DEFAULTS | dict.fromkeys(further, UNKNOWN)).items():
        if column not in table:
            table[column] = value
    if "group" not in table and "speaker" in table:
        table["group"] = table["speaker"]
    columns = [*COLUMNS, *further]
    if table.empty:
        table = table.reindex(columns=columns)
    kinds = {"start_s": "float64", "end_s": "float64", "synthetic": bool}
    table = table[columns].astype({column: kinds.get(column, str) for column in columns})
    return table.fillna(dict.fromkeys([GENDER, *further], UNKNOWN))


def text_frame(rows: Sequence[Mapping]) -> pd.DataFrame:
    """The dicts as a frame; file names that are not UTF-8 are escaped, since a frame has none."""
    return pd.DataFrame(
        [
            {key: escape_undecodable(v) if isinstance(v, str) else v for key, v in row.items()}
            for row in rows
        ]
    )


def check(table: pd.DataFrame) -> None:
    """Raise UserError unless the table follows the schema.

    All COLUMNS, at least one row, unique ids, no blank identity, two-letter languages, genders and
    splits as spelt in `rows.GENDERS` and SPLITS, spans with a length, and no group in two splits.
    """
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise UserError(
            f"the table of utterances lacks the columns {', '.join(missing)}; "
            "ermgap.corpora.table.frame builds it with all of them."
        )
    if table.empty:
        raise UserError("the table of utterances is empty; name a corpus with clips.")
    start, end = (pd.to_numeric(table[name], errors="coerce") for name in ("start_s", "end_s"))
    refused = {
        f"has no {column}; fill it in": table[column].isna()
        | (table[column].astype(str).str.strip() == "")
        for column in _NEVER_BLANK
    } | {
        "has the language {language!r}; write two letters of ISO 639-1, such as de": ~(
            table["language"].astype(str).str.fullmatch("[a-z]{2}")
        ),
        "has the gender {gender!r}; write female or male, another word, or '' if it is unknown": (
            ~_is_spelt_right(table[GENDER])
        ),
        "has the split {split!r}; write train, dev, test, or leave it empty": ~(
            table["split"].isin([*SPLITS, ""])
        ),
        "runs from {start_s} s to {end_s} s; let it start at 0 or later, then end": ~(
            np.isfinite(start) & (start >= 0) & (end.isna() | (end > start))
        ),
        "has an id that an earlier utterance has; give every utterance its own": (
            table["utterance_id"].duplicated()
        ),
    }
    for sentence, bad in refused.items():
        if bad.any():
            row = table[bad.to_numpy()].iloc[0]
            values = {key: one_line(v) if isinstance(v, str) else v for key, v in row.items()}
            others = f" ({int(bad.sum())} rows are like this)" if bad.sum() > 1 else ""
            raise UserError(
                f"the utterance {values['utterance_id']!r} of the corpus {values['corpus']!r} "
                f"{sentence.format(**values)}{others}."
            )
    _check_groups(table)


def _is_spelt_right(gender: pd.Series) -> pd.Series:
    """Whether each value is text, and female where it means that, and so on."""
    return gender.map(
        lambda value: (
            isinstance(value, str) and row_values.GENDERS.get(value.strip().lower(), value) == value
        )
    ).astype(bool)


def _check_groups(table: pd.DataFrame) -> None:
    assigned = table[table["split"] != ""]
    splits = assigned.groupby("group")["split"].nunique()
    torn = assigned[assigned["group"].isin(splits.index[splits > 1])]
    if len(torn):
        names = " and ".join(sorted(torn["split"].unique()))
        raise UserError(
            f"{describe_groups(torn)} in the splits {names} ({len(torn)} utterances), so a run "
            "would see its own test speakers; give each one split, leave all theirs empty, or name "
            "finer groups in the column 'split_group'."
        )


def describe_groups(table: pd.DataFrame) -> str:
    """The start of a sentence on a table's groups, such as `2 speakers ('a', 'b') are`."""
    names = pd.unique(table["group"])
    kind = "speaker" if (table["group"] == table["speaker"]).all() else "group"
    listed = ", ".join(quoted(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    ending, verb = ("s", "are") if len(names) > 1 else ("", "is")
    return f"{len(names)} {kind}{ending} ({listed}{more}) {verb}"


def counts(
    table: pd.DataFrame,
    *,
    labels: Sequence[str] | None = None,
    attribute: Sequence[str] = (GENDER,),
) -> pd.DataFrame:
    """Utterances (int) by split, language and side (the index) and emotion (the columns).

    Every split and language that occurs has a row for each side that the language has, and a column
    for every label (None: the emotions of the table), so that an empty cell is a visible 0. Where
    language is part of the attribute, all languages are one (`attributes.ALL`).
    """
    keyed = _keyed(table, attribute)
    sides = attribute_of.cell_sides(table, attribute, unknown=True)
    rows = [
        (split, language, side)
        for split in (*SPLITS, "")
        for language in sorted(keyed.loc[keyed["split"] == split, "language"].unique())
        for side in sides[language]
    ]
    of_cell = "cell" if "language" in attribute else "language"
    names = ["split", of_cell, attribute_of.title(attribute)]
    index = pd.MultiIndex.from_tuples(rows, names=names)
    labels = list(labels) if labels is not None else sorted(table["emotion"].unique())
    tally = keyed.groupby([*_KEYS, "emotion"]).size().unstack(fill_value=0)
    return tally.rename_axis(names).reindex(index=index, columns=labels, fill_value=0)


def _keyed(table: pd.DataFrame, attribute: Sequence[str]) -> pd.DataFrame:
    """The columns to count by: split, the cell's language, side, emotion, speaker."""
    language = attribute_of.cell_languages(table, attribute)
    side = attribute_of.values(table, attribute)
    return table[["split", "emotion", "speaker"]].assign(language=language, side=side)


def warnings(table: pd.DataFrame, *, attribute: Sequence[str] = (GENDER,)) -> list[str]:
    """Sentences about languages whose split is whole and has no gap to train on or measure."""
    splits = [split for split in SPLITS if split != "test" or (table["split"] == split).any()]
    sides = {*attribute_of.sides(table, attribute)}
    return [
        f"{_named(language)} has {_too_few(sides, present, attribute)} in {split}: "
        "no gap is defined there."
        for language, part in _keyed(table, attribute).groupby("language")
        if (part["split"] != "").all()
        for split in splits
        if len(present := sides & {*part["side"][part["split"] == split]}) < 2
    ]


def _named(language: str) -> str:
    return "the table" if language == attribute_of.ALL else language


def _too_few(sides: set[str], present: set[str], attribute: Sequence[str]) -> str:
    """What a language lacks that has fewer than two sides, such as `no female utterance`."""
    if len(sides) == 2:
        return f"no {' and no '.join(map(one_line, sorted(sides - present)))} utterance"
    only = f"but one {attribute_of.title(attribute)} ({one_line(*present)})" if present else ""
    return only or f"no known {attribute_of.title(attribute)}"


def summarize_reasons(excluded: pd.DataFrame, *, most: int = 12) -> str:
    """Exclusions in one line: the commonest reasons with their counts."""
    if excluded.empty:
        return "it holds no clip"
    # Peaks differ from clip to clip: one of them stands for all.
    alike = excluded["reason"].str.replace(r"\(peak .*?;", "(peak;", regex=True)
    kinds = excluded["reason"].groupby(alike).agg(["size", "first", "nunique"])
    kinds = kinds.loc[alike.value_counts().index]
    tally = [
        f"{n} x {reason.replace(';', ' and others;', 1) if several > 1 else reason}"
        for n, reason, several in kinds.itertuples(index=False)
    ]
    more = f"; and {len(tally) - most} more reasons" if len(tally) > most else ""
    return "; ".join(tally[:most]) + more


def describe(
    table: pd.DataFrame,
    *,
    excluded: pd.DataFrame | None = None,
    labels: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    attribute: Sequence[str] = (GENDER,),
) -> str:
    """Plain text for the screen: counts per split, language, side and emotion, with totals.

    Below it: hours and speakers, the values of each further attribute, synthetic corpora,
    exclusions with their reasons, notes, warnings.
    """
    synthetic = table.loc[table["synthetic"].astype(bool), "corpus"].value_counts(sort=False)
    hours = (table["end_s"] - table["start_s"]).sum() / 3600
    lines = [
        *_grid(table, labels, attribute),
        f"{len(table)} utterances of {table['speaker'].nunique()} speakers in "
        f"{', '.join(sorted(table['language'].unique()))}: {hours:.2f} hours",
        *(
            f"{name}: {attribute_values.listed(table, name)}"
            for name in attribute_of.columns(table)
            if (name,) != tuple(attribute)
        ),
    ]
    lines += [
        f"synthetic: {n} utterances of {name} are not human speech; they support no claim on people"
        for name, n in synthetic.items()
    ]
    for name, part in [] if excluded is None else excluded.groupby("corpus"):
        lines.append(f"excluded from {name}: {len(part)} ({summarize_reasons(part)})")
    lines += [f"note: {note}" for note in notes]
    return "\n".join(lines + [f"warning: {text}" for text in warnings(table, attribute=attribute)])


def _grid(table: pd.DataFrame, labels: Sequence[str] | None, attribute: Sequence[str]) -> list[str]:
    """Lines of `counts` with totals and numbers of speakers, in aligned columns."""
    tally = counts(table, labels=labels, attribute=attribute)
    speakers = _keyed(table, attribute).groupby(_KEYS)["speaker"].nunique()
    rows = [[*tally.index.names, *tally.columns, "total", "speakers"]]
    for key, row in zip(tally.index, tally.to_numpy(), strict=True):
        named = [*key[:2], one_line(key[2]) or "unknown"]
        rows.append([*named, *row, row.sum(), speakers.get(key, 0)])
    rows.append(["all", "", "", *tally.sum(), tally.to_numpy().sum(), table["speaker"].nunique()])
    cells = [[str(value) if value != "" else "-" for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < len(_KEYS) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
