"""Parses one row of a manifest or dataset, given as text, into one row of the table.

A wrong value raises a UserError that starts with the place (`FILE, row 7`). An attribute that is
declared unknown is "".
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from ermgap.config import GENDER, quoted
from ermgap.corpora.clip_paths import require_file, require_inside
from ermgap.errors import UserError

REQUIRED = ("path", "language", "emotion", GENDER)
OPTIONAL = (
    "speaker", "split_group", "group", "transcript", "start_s", "end_s", "duration_s", "synthetic",
    "split", "utterance_id", "corpus",
)  # fmt: skip
NO_NAME = {"", "unknown", "na", "n/a", "#n/a", "<na>", "nan", "none", "null", "?", "-"}
GENDERS = {
    **dict.fromkeys(("female", "f", "woman"), "female"),
    **dict.fromkeys(("male", "m", "man"), "male"),
    **dict.fromkeys(("nonbinary", "non-binary"), "nonbinary"),
    **{name: name for name in ("diverse", "other")},
    **dict.fromkeys((*NO_NAME, "unspecified", "group", "mixed", "both"), ""),
}
SPLITS = {"": "", "train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev",
          "test": "test"}  # fmt: skip
SPLIT_REMEDY = "write train, dev or test, or leave it empty"
FLAGS = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
    **dict.fromkeys(("", "0", "0.0", "false", "no"), False),
}


def required(attributes: Sequence[str]) -> tuple[str, ...]:
    """The columns that a file needs where these attributes are asked for."""
    return tuple(name for name in REQUIRED if name != GENDER or GENDER in attributes)


def parse(
    values: Mapping[str, str],
    *,
    place: str,
    source: str,
    outside: bool = False,
    attributes: Sequence[str] = (),
) -> dict:
    """The table's row, without `path` made absolute, with `gender` and other `attributes`.

    An attribute is "" where it is absent or declared unknown, and else as it is given.
    `outside` lets the path be absolute or go up.

    `source` (the folder's or dataset's name) is the default corpus and goes before ids, speakers
    and groups, so that speaker 01 of two sources stays two speakers. A group defaults to the
    speaker, a speaker to the group, and both to the utterance itself, for which a cell that is
    empty or says NA, unknown or the like counts as empty.
    """
    fields = defaultdict(str, {key: (value or "").strip() for key, value in values.items()})
    start = number(fields["start_s"], column="start_s", place=place) or 0.0
    end = number(fields["end_s"], column="end_s", place=place)
    number(fields["duration_s"], column="duration_s", place=place)
    if end is not None and end <= start:
        raise UserError(
            f"{place}: start_s {start:g} is not before end_s {end:g}; correct the span."
        )
    path = fields["path"]
    require_file(path, place=place)
    if not outside:
        require_inside(path, place=place)
    if not re.fullmatch("[a-zA-Z]{2}", language := fields["language"]):
        raise UserError(
            f"{place}: the language is {quoted(language)}; write its two letters of ISO 639-1, "
            "such as de."
        )
    if not fields["emotion"]:
        raise UserError(f"{place}: the emotion is empty; write a label, such as joy.")
    span = f"#{start:.3f}-{'' if end is None else f'{end:.3f}'}" if start or end else ""
    default_id = f"{source}/{PurePosixPath(path).with_suffix('')}{span}"
    utterance = _prefixed(fields["utterance_id"], source, "/") or default_id
    group = _prefixed(_name(fields, "split_group") or _name(fields, "group"), source, "_")
    speaker = _prefixed(_name(fields, "speaker"), source, "_") or group or utterance
    return {
        "utterance_id": utterance,
        "corpus": fields["corpus"] or source,
        "language": language.lower(),
        "gender": gender(fields["gender"], place=place),
        "emotion": fields["emotion"].lower(),
        "speaker": speaker,
        "group": group or speaker,
        "split": _choice(fields["split"], SPLITS, f"{place}: split", SPLIT_REMEDY),
        "path": path,
        "start_s": start,
        "end_s": np.nan if end is None else end,
        "transcript": fields["transcript"],
        "synthetic": _choice(fields["synthetic"], FLAGS, f"{place}: synthetic", "write 1 or 0"),
    } | {name: _name(fields, name) for name in attributes if name != GENDER}


def number(text: str, *, column: str, place: str) -> float | None:
    """Seconds, or None for an empty text; raises UserError unless finite and not negative."""
    if text.lower() in ("", "nan", "none"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UserError(
            f"{place}: {column} is {quoted(text)}; write seconds as a number, such as 1.25."
        )
    return value


def _name(values: Mapping[str, str], column: str) -> str:
    name = values.get(column, "")
    return "" if name.lower() in NO_NAME else name


def _prefixed(name: str, source: str, mark: str) -> str:
    return name if not name or name.startswith(f"{source}{mark}") else f"{source}{mark}{name}"


def gender(text: str, *, place: str) -> str:
    """A value of GENDERS, "" where it is declared unknown; raises UserError for other words."""
    remedy = "write female or male, nonbinary, diverse, other, or unknown"
    return _choice(text.strip(), GENDERS, f"{place}: the gender", remedy)


def _choice(text: str, choices: Mapping, subject: str, remedy: str):
    """The value of `choices` for a text in any letter case; raises UserError if it has none."""
    if text.lower() in choices:
        return choices[text.lower()]
    raise UserError(f"{subject} is {quoted(text)}; {remedy}.")
