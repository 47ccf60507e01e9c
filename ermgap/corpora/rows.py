"""One row of a manifest, as text, into one row of the table; shared by `manifest` and `hf`.

Values arrive as strings, whatever held them. A wrong value raises UserError that starts with the
place (`FILE, row 7`); a speaker whose gender is declared unknown is an exclusion.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from ermgap.errors import UserError
from ermgap.files import native
from ermgap.plain_yaml import shown

ASK = "or allow it with --set data.outside=true if you trust who wrote it"
REQUIRED = ("path", "language", "emotion", "gender")
FEMALE = {"female", "f", "woman"}
MALE = {"male", "m", "man"}
UNKNOWN = {"", "unknown", "other", "na", "n/a", "nan", "none", "null", "unspecified", "group",
           "mixed", "nonbinary", "non-binary", "diverse", "both", "?"}  # fmt: skip
SPLITS = {"": "", "train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev",
          "test": "test"}  # fmt: skip
TRUE = {"1", "1.0", "true", "yes"}
FALSE = {"", "0", "0.0", "false", "no"}


def parse(values: Mapping[str, str], *, place: str, source: str, outside: bool = False) -> dict:
    """The table's row, without `path` made absolute; `gender` is "" where it is declared unknown.

    `outside` lets the path be absolute or go up.

    `source` (the folder's or dataset's name) is the default corpus and goes before ids, speakers
    and groups, so that speaker 01 of two sources stays two speakers. A group defaults to the
    speaker, a speaker to the group, and both to the utterance itself.
    """
    take = {key: (value or "").strip() for key, value in values.items()}
    start = number(take.get("start_s", ""), column="start_s", place=place) or 0.0
    end = number(take.get("end_s", ""), column="end_s", place=place)
    number(take.get("duration_s", ""), column="duration_s", place=place)
    if end is not None and end <= start:
        raise UserError(
            f"{place}: start_s {start:g} is not before end_s {end:g}; correct the span."
        )
    path = take["path"]
    require_file(path, place=place)
    if not outside:
        require_inside(path, place=place)
    span = f"#{start:.3f}-{'' if end is None else f'{end:.3f}'}" if start or end else ""
    default_id = f"{source}/{PurePosixPath(path).with_suffix('')}{span}"
    utterance = _prefixed(take.get("utterance_id", ""), source, "/") or default_id
    group = _prefixed(take.get("split_group") or take.get("group", ""), source, "_")
    speaker = _prefixed(take.get("speaker", ""), source, "_") or group or utterance
    return {
        "utterance_id": utterance,
        "corpus": take.get("corpus") or source,
        "language": _language(take["language"], place),
        "gender": gender(take["gender"], place=place),
        "emotion": _emotion(take["emotion"], place),
        "speaker": speaker,
        "group": group or speaker,
        "split": _choice(take.get("split", "").lower(), SPLITS, column="split", place=place),
        "path": path,
        "start_s": start,
        "end_s": np.nan if end is None else end,
        "transcript": take.get("transcript", ""),
        "synthetic": _flag(take.get("synthetic", "").lower(), place),
    }


def require_file(path: str, *, place: str) -> None:
    """Raise UserError unless `path` has a file's name and only characters that can be printed."""
    if not PurePosixPath(path).name or not path.isprintable():
        raise UserError(
            f"{place}: the path {shown(path)} names no file; write it in the column 'path'."
        )


def require_inside(path: str, *, place: str) -> None:
    """Raise UserError for a path that is absolute or has `..`, as text: no file is looked at."""
    absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor
    if absolute or ".." in re.split(r"[/\\]", path) or path.startswith("~"):
        raise UserError(
            f"{place}: the path {shown(path)} leads out of the corpus; "
            f"write it relative to the manifest's folder, without '..', {ASK}."
        )


class Inside:
    """Whether files lie below one of some folders once every symbolic link is followed."""

    def __init__(self, *folders: str | Path) -> None:
        self._folders = tuple(os.path.realpath(folder) for folder in folders)
        self._real: dict[str, str] = {}  # of the folders that files are in: a link or two a corpus

    def require(self, path: str, *, place: str) -> None:
        """Raise UserError for a file elsewhere; one that is absent is judged by its name."""
        try:
            real = self._followed(os.fsdecode(native(path)))
        except (OSError, ValueError):  # too long for a file's name; it will be counted as missing
            return
        if not any(real.startswith(os.path.join(folder, "")) for folder in self._folders):
            raise UserError(
                f"{place}: {shown(path)} lies outside of the corpus, where a link or its path "
                f"leads; copy it there, {ASK}."
            )

    def _followed(self, path: str) -> str:
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        # Each file costs one look, not one a part of its path: 30,000 files are usual.
        near = os.path.join(self._real[folder], name)
        return os.path.realpath(near) if name in ("", ".", "..") or os.path.islink(near) else near


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
            f"{place}: {column} is {shown(text)}; write seconds as a number, such as 1.25."
        )
    return value


def _prefixed(name: str, source: str, mark: str) -> str:
    return name if not name or name.startswith(f"{source}{mark}") else f"{source}{mark}{name}"


def _language(text: str, place: str) -> str:
    if re.fullmatch("[a-zA-Z]{2}", text):
        return text.lower()
    raise UserError(
        f"{place}: the language is {shown(text)}; write its two letters of ISO 639-1, such as de."
    )


def gender(text: str, *, place: str) -> str:
    """`female`, `male`, or "" where it is declared unknown; raises UserError for other words."""
    word = text.lower()
    if word in UNKNOWN:
        return ""
    if word in FEMALE | MALE:
        return "female" if word in FEMALE else "male"
    raise UserError(
        f"{place}: the gender is {shown(text)}; write female or male, or unknown to leave the clip "
        "out."
    )


def _emotion(text: str, place: str) -> str:
    if not text:
        raise UserError(f"{place}: the emotion is empty; write a label, such as joy.")
    return text.lower()


def _choice(text: str, choices: Mapping[str, str], *, column: str, place: str) -> str:
    if text in choices:
        return choices[text]
    raise UserError(
        f"{place}: {column} is {shown(text)}; write train, dev or test, or leave it empty."
    )


def _flag(text: str, place: str) -> bool:
    if text in TRUE | FALSE:
        return text in TRUE
    raise UserError(f"{place}: synthetic is {shown(text)}; write 1 or 0.")
