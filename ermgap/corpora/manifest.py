"""Loader of any corpus that has a CSV manifest.

    python sweeps/pareto.py --data manifest=FOLDER        # reads FOLDER/manifest.csv
    python sweeps/pareto.py --data manifest=FILE.csv      # paths are relative to the file's folder
    ... --set data.outside=true                           # clips may lie elsewhere than below it

UTF-8, with a header, separated by commas (or by semicolons, tabs or bars, which the header shows).
Required columns: path, language (ISO 639-1), emotion, gender (female, male, or unknown, which is
left out). Optional: speaker (where empty, NA or unknown, the utterance counts as a speaker of its
own), split_group or group (what a split may not cut), transcript, start_s, end_s, duration_s,
synthetic (1, 0), split (train, dev, test), utterance_id, corpus. The letter case of names does not
count; other columns are not read, and named in a note. A path that is spelt otherwise than its file
(backslashes, letter case, composed accents) is noted. `emotion` counts, and happy, angry and the
like become the labels joy, anger when these are among the run's labels.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from ermgap.config import one_line, quoted
from ermgap.corpora import columns, rows
from ermgap.corpora.clip_paths import ClipPaths
from ermgap.corpora.csv_file import CsvTable, read_csv
from ermgap.corpora.folder import need_path
from ermgap.corpora.table import Corpus, excluded_frame, frame
from ermgap.errors import UserError
from ermgap.records.files import escape_undecodable

NAME = "manifest.csv"
NUMBERS = ("start_s", "end_s", "duration_s", "synthetic")


def load(path: Path | None, *, outside: bool = False, corpus: str | None = None) -> Corpus:
    """The table of a manifest; clips whose gender is unknown are left out.

    `corpus` is the name of the corpus, and goes before ids and speakers; the folder's name if None.
    A row's own `corpus` wins as the corpus's name.

    A manifest that somebody else wrote must not make this machine read, or send to an endpoint,
    what lies elsewhere: a path that leads out of the manifest's folder, by its text or by a
    symbolic link, is refused unless `outside`. Raises UserError naming file and row for that and
    for every other mistake. Whether the clips exist and can be read is found out later, by
    `audio.inspect`.
    """
    called = corpus or "manifest"
    root = need_path(path, corpus=called, what="a folder with manifest.csv, or a .csv file")
    file = file_of(root)
    if not os.path.isfile(file):
        raise UserError(f"{root} holds no {NAME}; write one, or name the .csv file itself.")
    sheet = read_csv(file, required=rows.REQUIRED, optional=rows.OPTIONAL)
    source = corpus or source_of(root)
    found = []
    clips = ClipPaths(file.parent, outside=outside)
    for row, named in sheet.records():
        place = f"{file}, row {row}"
        named = _with_points(named, sheet)
        parsed = rows.parse(named, place=place, source=source, outside=outside)
        found.append(parsed | {"path": clips.find(named["path"], place=place)})
    _refuse_repeats(found, [row for row, _ in sheet.rows], file)
    called = f"{one_line(source)}'s {one_line(file.name)}"
    read = {*rows.REQUIRED, *rows.OPTIONAL}
    unread = [name for name in sheet.header if name not in read]
    notes = (
        *sheet.notes(called),
        *columns.unread_notes(unread, read=read & set(sheet.header), where=called),
        *clips.notes(called),
    )
    return from_rows(found, notes=notes)


def file_of(path: Path) -> Path:
    """The CSV file that a folder or a file stands for."""
    return path / NAME if path.is_dir() else path


def source_of(path: Path) -> str:
    """What goes before the ids and speakers of a manifest that was given no name."""
    return escape_undecodable(file_of(path).resolve().parent.name) or "manifest"


def from_rows(found: list[dict], *, notes: tuple[str, ...] = ()) -> Corpus:
    """Parsed rows with absolute paths as a Corpus; unknown genders are left out and counted."""
    unknown = [
        {"corpus": row["corpus"], "path": row["path"], "reason": "the speaker's gender is unknown"}
        for row in found
        if not row["gender"]
    ]
    table = frame([row for row in found if row["gender"]])
    return Corpus(
        table=table,
        excluded=excluded_frame(unknown),
        notes=(*notes, *_speaker_notes(table)),
    )


def _speaker_notes(table: pd.DataFrame) -> list[str]:
    """A sentence for each corpus on its utterances that name neither a speaker nor a group."""
    risk = "so one voice may be in both train and dev, and look easy"
    notes = []
    for name, part in table.groupby("corpus", sort=False):
        lone = int((part["speaker"] == part["utterance_id"]).sum())
        if lone == len(part):
            notes.append(
                f"{name} names no speakers or groups: each of its {lone} utterances counts as a "
                f"speaker of its own, {risk}"
            )
        elif lone:
            notes.append(
                f"{lone} of {len(part)} utterances of {name} name no speaker: each of them counts "
                f"as a speaker of its own, {risk}"
            )
    return notes


def _with_points(named: dict[str, str], sheet: CsvTable) -> dict[str, str]:
    """A row whose decimal commas are points, where a comma does not separate the columns."""
    if sheet.separator == ",":
        return named
    return named | {
        name: re.sub(r"^(\d+),(\d+)$", r"\1.\2", named[name].strip(), flags=re.ASCII)
        for name in NUMBERS
        if name in named
    }


def _refuse_repeats(found: list[dict], numbers: list[int], file: Path) -> None:
    first: dict[str, int] = {}
    for row, number in zip(found, numbers, strict=True):
        name = row["utterance_id"]
        if name in first:
            raise UserError(
                f"{file}, row {number}: the utterance {quoted(name)} is already in row "
                f"{first[name]}; "
                "remove one, or give each its own utterance_id."
            )
        first[name] = number
