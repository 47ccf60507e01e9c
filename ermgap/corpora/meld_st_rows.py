"""Reads the CSVs of MELD-ST (two clips a row, English and dubbed) and of its speakers' genders.

    genders = read_genders(None)                       # {"ross": "male", "all": "", ...}
    clips = read(root, PAIRS[0], genders)          # dicts; `reason` says why one is excluded

A mistake in a file raises UserError; a mistake in a row of MELD-ST is the reason of its clips.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ermgap.config import quoted
from ermgap.corpora.csv_file import read_csv
from ermgap.corpora.rows import gender as gender_of
from ermgap.errors import UserError

# Inferred from MELD's characters, not self-reported: `data/README.md` says what that means.
GENDERS_FILE = Path(__file__).parent / "data" / "meld_speaker_gender.csv"

SPLITS = {"train": "train", "dev": "valid", "test": "test"}  # audio folder and table: CSV
NUMBERS = {"season": "season", "episode": "episode", "dia_id": "dialogue", "utt_id": "utterance"}
ID = re.compile(r"[0-9A-Za-z][\w-]*", re.ASCII)  # no dot and no slash: it cannot leave its folder
UNKNOWN = "the speaker's gender is unknown"
UNLISTED = "the speaker {!r} is not in the file of genders"
NUMBER = re.compile(r"(\d{1,6})(\.0+)?", re.ASCII)  # 3.0: a column that pandas held as float


@dataclass(frozen=True)
class Pair:
    """One half of MELD-ST: English and `column`'s language, each under a folder of its own."""

    folder: str
    language: str
    column: str
    audio: str

    def csvs(self, root: Path) -> dict[str, Path]:
        folder, name = root / self.folder, self.audio.lower()
        return {split: folder / f"{name}_{csv}.csv" for split, csv in SPLITS.items()}


PAIRS = (Pair("ENG_DEU", "de", "German", "DEU"), Pair("ENG_JPN", "ja", "Japanese", "JPN"))


def normalized_name(name: str) -> str:
    """A name as it is looked up: case, spaces and forms of letters do not count."""
    name = unicodedata.normalize("NFC", name)
    return " ".join(name.replace("\u2019", "'").replace("\u2018", "'").split()).casefold()


def read_genders(file: Path | None) -> dict[str, str]:
    """The gender (female, male, or "" for unknown) of each speaker by `normalized_name`.

    `file` is a CSV with the columns speaker and gender, None the shipped one. Raises
    UserError naming file and row for a file that is absent or no CSV, a missing column, an empty
    speaker, a gender in other words, and a speaker who is given two genders.
    """
    file = file or GENDERS_FILE
    if not os.path.isfile(file):
        raise UserError(
            f"there is no file of genders {file}; write a CSV with the columns speaker and gender."
        )
    genders: dict[str, tuple[str, int]] = {}
    for number, row in read_csv(file, required=("speaker", "gender")).rows:
        place = f"{file}, row {number}"
        name, gender = normalized_name(row["speaker"]), gender_of(row["gender"], place=place)
        if not name:
            raise UserError(f"{place}: the speaker is empty; write a name, or remove the row.")
        known, first = genders.setdefault(name, (gender, number))
        if known != gender:
            raise UserError(
                f"{place}: {quoted(row['speaker'].strip())} is {gender or 'unknown'} here and "
                f"{known or 'unknown'} in row {first}; keep one."
            )
    return {name: gender for name, (gender, _) in genders.items()}


def read(root: Path, pair: Pair, genders: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The clips of a pair, English and dubbed in turn, in the order train, dev, test.

    Keys: pair, split, language, path, dialogue (`s04e07_d0000`), key (`s04e07_d0000_u001`),
    speaker, gender, emotion, transcript, english, reason (why it is excluded, or ""; only such a
    clip may lack a key) and unknown (why its gender is not known, or ""). `genders` is what
    `read_genders` gives. Raises UserError as `csv_file.read_csv` does.
    """
    required = ("id", "English", pair.column, "emotion", "speaker", *NUMBERS)
    dubbed = (pair.language, pair.audio, pair.column)
    for split, file in pair.csvs(root).items():
        rows = [
            (number, {name: value.strip() for name, value in row.items()})
            for number, row in read_csv(file, required=required).rows
        ]
        wrong_ids = _wrong_ids([row for _, row in rows])
        for (number, row), wrong_id in zip(rows, wrong_ids, strict=True):
            gender = genders.get(normalized_name(row["speaker"]))
            matches = {column: NUMBER.fullmatch(row[column]) for column in NUMBERS}
            dialogue = utterance = ""
            if all(matches.values()):
                numbers = [int(match[1]) for match in matches.values()]
                dialogue = "s{:02d}e{:02d}_d{:04d}".format(*numbers)
                utterance = f"{dialogue}_u{numbers[3]:03d}"
            known = {
                "pair": pair.folder,
                "split": split,
                "dialogue": dialogue,
                "key": utterance,
                "speaker": " ".join(row["speaker"].split()),
                "gender": gender or "",
                "emotion": row["emotion"].lower(),
                "english": row["English"],
                "reason": wrong_id or _reason(row, matches),
                "unknown": _unknown(row["speaker"], gender),
            }
            for language, audio, column in (("en", "ENG", "English"), dubbed):
                path = file.parent / audio / split / f"{split}_{_plain(row['id'])}.wav"
                path = f"{file}, row {number} ({language})" if wrong_id else str(path)
                yield known | {"language": language, "path": path, "transcript": row[column]}


def _plain(text: str) -> str:
    """An id as in a file's name: 12 where pandas made it 12.0."""
    number = NUMBER.fullmatch(text)
    return number[1] if number else text


def _wrong_ids(rows: list[dict[str, str]]) -> Iterator[str]:
    """Why the id of each row names no clip, or ""; the first of equal rows keeps its clip."""
    first: dict[str, dict[str, str]] = {}
    named = [(_plain(row["id"]), row) for row in rows]
    ambiguous = {name for name, row in named if first.setdefault(name, row) != row}
    for name, row in named:
        if not name:
            yield "its id is empty"
        elif not ID.fullmatch(name):
            yield f"its id {quoted(name)} names no clip (letters, digits, - and _ do)"
        elif name in ambiguous:
            yield "its id is that of another row too: which one the clip holds is unknown"
        else:
            yield "" if row is first[name] else "its row is in the file twice"


def _reason(row: Mapping[str, str], numbers: Mapping) -> str:
    """Why a row is excluded, or ""; `numbers` are the matches of the columns NUMBERS."""
    for column, number in numbers.items():
        if number is None:
            return f"its {NUMBERS[column]} {quoted(row[column])} is no number"
    for column in ("emotion", "speaker"):
        if not row[column]:
            return f"its {column} is empty"
    return ""


def _unknown(speaker: str, gender: str | None) -> str:
    """Why a speaker's gender is not known, or ""; None is that of one who is not listed."""
    if gender is None:
        return UNLISTED.format(" ".join(speaker.split()))
    return "" if gender else UNKNOWN
