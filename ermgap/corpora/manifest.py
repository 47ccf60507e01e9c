"""Loader of any corpus that has a CSV manifest.

    python sweeps/pareto.py --data manifest=FOLDER        # reads FOLDER/manifest.csv
    python sweeps/pareto.py --data manifest=FILE.csv      # paths are relative to the file's folder
    ... --set data.outside=true                           # clips may lie elsewhere than below it

UTF-8, with a header, separated by commas (or by semicolons, tabs or bars, which the header shows).
Required columns: path, language (ISO 639-1), emotion, gender (female, male, nonbinary, diverse,
other, or unknown). Optional: group:<name> (an attribute of any name, whose values are kept as
given), speaker (where empty, NA or unknown, the utterance counts as a speaker of its
own), split_group or group (what a split may not cut), transcript, start_s, end_s, duration_s,
synthetic (1, 0), split (train, dev, test), utterance_id, corpus. The letter case of names does not
count; other columns are not read, and named in a note. A path that is spelt unlike its file
(backslashes, letter case, composed accents) is noted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from ermgap.config import GENDER, one_line, quoted
from ermgap.corpora import columns, rows
from ermgap.corpora.clip_paths import ClipPaths
from ermgap.corpora.csv_file import read_csv
from ermgap.corpora.folder import need_path
from ermgap.corpora.table import Corpus, frame
from ermgap.errors import UserError
from ermgap.records.files import escape_undecodable

NAME = "manifest.csv"
NUMBERS = {"start_s", "end_s", "duration_s", "synthetic"}
COMMA = re.compile(r"^(\d+),(\d+)$", re.ASCII)  # of a number whose decimals follow a comma


def load(
    path: Path | None,
    *,
    outside: bool = False,
    corpus: str | None = None,
    attributes: Sequence[str] = (GENDER,),
) -> Corpus:
    """The table of a manifest, with its columns `group:<name>` and those of `attributes`.

    `corpus` is the name of the corpus, and goes before ids and speakers; the folder's name if None.
    A row's own `corpus` wins as the corpus's name.

    A manifest that somebody else wrote must not make this machine read, or send to an endpoint,
    files elsewhere: a path that leads out of the manifest's folder, by its text or by a symbolic
    link, is an error unless `outside`. Raises UserError naming file and row for that and for every
    other mistake. Whether the clips exist and can be read is checked later, by `audio.inspect`.
    """
    name = corpus or "manifest"
    root = need_path(path, corpus=name, what="a folder with manifest.csv, or a .csv file")
    file = file_of(root)
    if not os.path.isfile(file):
        raise UserError(f"{root} holds no {NAME}; write one, or name the .csv file itself.")
    required, optional = rows.required(attributes), (*rows.REQUIRED, *rows.OPTIONAL)
    table = read_csv(file, required=required, optional=optional, attributes=attributes)
    source = corpus or source_of(root)
    clips = ClipPaths(file.parent, outside=outside)
    parsed: list[dict] = []
    first: dict[str, int] = {}  # row of each utterance
    for number, row in table.rows:
        place = f"{file}, row {number}"
        if table.separator != ",":
            row |= {name: COMMA.sub(r"\1.\2", row[name].strip()) for name in NUMBERS & row.keys()}
        utterance = rows.parse(
            row, place=place, source=source, outside=outside, attributes=table.attributes
        )
        parsed.append(utterance | {"path": clips.find(row["path"], place=place)})
        own_id = utterance["utterance_id"]
        if first.setdefault(own_id, number) != number:
            raise UserError(
                f"{place}: the utterance {quoted(own_id)} is already in row {first[own_id]}; "
                "remove one, or give each its own utterance_id."
            )
    title = f"{one_line(source)}'s {one_line(file.name)}"
    read = {*optional, *table.attributes} & set(table.header)
    unread = [name for name in table.header if name not in read]
    notes = table.notes(title) + columns.unread_notes(unread, read=read, where=title)
    return from_rows(parsed, attributes=table.attributes, notes=notes + clips.notes(title))


def file_of(path: Path) -> Path:
    """The CSV file that a folder or a file stands for."""
    return path / NAME if path.is_dir() else path


def source_of(path: Path) -> str:
    """What goes before the ids and speakers of a manifest that was given no name."""
    return escape_undecodable(file_of(path).resolve().parent.name) or "manifest"


def from_rows(parsed: list[dict], *, attributes: Sequence[str], notes: tuple[str, ...]) -> Corpus:
    """Parsed rows with absolute paths as a Corpus."""
    table = frame(parsed, attributes=attributes)
    return Corpus(table=table, notes=(*notes, *_speaker_notes(table)))


def _speaker_notes(table: pd.DataFrame) -> Iterator[str]:
    """A sentence for each corpus on its utterances that name neither a speaker nor a group."""
    for name, part in table.groupby("corpus", sort=False):
        lone = int((part["speaker"] == part["utterance_id"]).sum())
        subject = f"{lone} of {len(part)} utterances of {name} name no speaker: each of them"
        if lone == len(part):
            subject = f"{name} names no speakers or groups: each of its {lone} utterances"
        if lone:
            yield (
                f"{subject} counts as a speaker of its own, so one voice may be in both train and "
                "dev, and look easy"
            )
