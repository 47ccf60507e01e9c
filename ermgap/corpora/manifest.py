"""Loader of any corpus that has a CSV manifest.

    python sweeps/pareto.py --data manifest=FOLDER        # reads FOLDER/manifest.csv
    python sweeps/pareto.py --data manifest=FILE.csv      # paths are relative to the file's folder
    ... --set data.outside=true                           # clips may lie elsewhere than below it

UTF-8, comma separated, with a header. Required columns: path, language (ISO 639-1), emotion, gender
(female, male, or unknown, which is left out). Optional: speaker, split_group or group (what a split
may not cut), transcript, start_s, end_s, duration_s, synthetic (1, 0), split (train, dev, test),
utterance_id, corpus. Other columns are not read; `emotion` counts, and happy, angry and the like
become the labels joy, anger when these are among the run's labels.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ermgap.corpora import rows as parsing
from ermgap.corpora.folder import need_path
from ermgap.corpora.table import Corpus, excluded_frame, frame
from ermgap.errors import UserError
from ermgap.files import escaped
from ermgap.plain_yaml import one_line, shown


def load(path: Path | None, *, outside: bool = False) -> Corpus:
    """The table of a manifest; clips whose gender is unknown are left out.

    A manifest that somebody else wrote must not make this machine read, or send to an endpoint,
    what lies elsewhere: a path that leads out of the manifest's folder, by its text or by a
    symbolic link, is refused unless `outside`. Raises UserError naming file and row for that and
    for every other mistake. Whether the clips exist and can be read is found out later, by
    `audio.inspect`.
    """
    root = need_path(path, corpus="manifest", what="a folder with manifest.csv, or a .csv file")
    file = root / "manifest.csv" if root.is_dir() else root
    if not os.path.isfile(file):
        raise UserError(f"{root} holds no manifest.csv; write one, or name the .csv file itself.")
    header, lines = read_csv(file)
    source = escaped(file.resolve().parent.name) or "manifest"
    found = []
    here = parsing.Inside(file.parent)
    for row, values in lines:
        named, place = dict(zip(header, values, strict=True)), f"{file}, row {row}"
        found.append(parsing.parse(named, place=place, source=source, outside=outside))
        if not outside:
            here.require(str(file.parent / found[-1]["path"]), place=place)
    _refuse_repeats(found, [row for row, _ in lines], file)
    return from_rows(found, root=file.parent, named_speakers=_names_speakers(header))


def from_rows(found: list[dict], *, root: Path, named_speakers: bool) -> Corpus:
    """Parsed rows as a Corpus: paths under `root`, unknown genders left out and counted."""
    rows = [{**row, "path": str(root / row["path"])} for row in found]
    unknown = [
        {"corpus": row["corpus"], "path": row["path"], "reason": "the speaker's gender is unknown"}
        for row in rows
        if not row["gender"]
    ]
    known = [row for row in rows if row["gender"]]
    note = "names no speakers or groups: one voice may be in both train and dev, and look easy"
    names = pd.unique(pd.Series([row["corpus"] for row in rows], dtype=str))
    notes = () if named_speakers else tuple(f"{name} {note}" for name in names)
    return Corpus(table=frame(known), excluded=excluded_frame(unknown), notes=notes)


def _names_speakers(header: list[str]) -> bool:
    return bool({"speaker", "group", "split_group"} & set(header))


def read_csv(
    file: Path, *, required: Sequence[str] = parsing.REQUIRED
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and (row number, fields) of a CSV; row 1 is the header, blank rows are skipped.

    Raises UserError for text that is not UTF-8, broken quotes, an empty file, a header that lacks a
    `required` column or repeats one, and a row with too few or too many fields.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True, skipinitialspace=True)
            numbered = [(i, row) for i, row in enumerate(reader, 1) if row]
    except UnicodeDecodeError as problem:
        raise UserError(f"{file} is not UTF-8 text; save it again as CSV in UTF-8.") from problem
    except csv.Error as problem:
        raise UserError(
            f"{file} is not a sound CSV (line {reader.line_num}: {one_line(str(problem))}); "
            "mend its quotes."
        ) from problem
    except OSError as problem:
        raise UserError(f"{file} cannot be opened ({problem.strerror}).") from problem
    if not numbered:
        raise UserError(f"{file} is empty; its first row must name the columns.")
    header = _check_header([name.strip() for name in numbered[0][1]], file, required)
    if len(numbered) == 1:
        raise UserError(f"{file} has a header and no rows; add one row a clip.")
    for row, values in numbered[1:]:
        if len(values) != len(header):
            raise UserError(
                f"{file}, row {row}: it has {len(values)} fields where the header has "
                f"{len(header)}; put a text with commas between double quotes."
            )
    return header, numbered[1:]


def _check_header(header: list[str], file: Path, required: Sequence[str]) -> list[str]:
    repeated = sorted(name for name, n in Counter(header).items() if name and n > 1)
    if repeated:
        raise UserError(f"{file} has the column {shown(repeated[0])} twice; keep one.")
    missing = [name for name in required if name not in header]
    if missing:
        other = next((mark for mark in ";\t" if len(header) == 1 and mark in header[0]), None)
        hint = (
            "separate its columns with commas" if other else f"it has {one_line(', '.join(header))}"
        )
        raise UserError(f"{file} lacks the column {', '.join(missing)}; {hint}.")
    return header


def _refuse_repeats(found: list[dict], numbers: list[int], file: Path) -> None:
    first: dict[str, int] = {}
    for row, number in zip(found, numbers, strict=True):
        name = row["utterance_id"]
        if name in first:
            raise UserError(
                f"{file}, row {number}: the utterance {shown(name)} is already in row "
                f"{first[name]}; "
                "remove one, or give each its own utterance_id."
            )
        first[name] = number
