"""Reads the CSVs of MELD-ST: two clips a row, English and its dubbed version.

    clips = read_pair(root, PAIRS[0], genders)     # list[Clip]; `reason` says why one is excluded

A mistake in a file raises UserError; a mistake in a row is the reason of its clips.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ermgap.config import quoted
from ermgap.corpora.csv_file import read_csv
from ermgap.corpora.genders import normalized_name

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

    def csv(self, root: Path, split: str) -> Path:
        return root / self.folder / f"{self.audio.lower()}_{SPLITS[split]}.csv"

    def csvs(self, root: Path) -> dict[str, Path]:
        return {split: self.csv(root, split) for split in SPLITS}


PAIRS = (Pair("ENG_DEU", "de", "German", "DEU"), Pair("ENG_JPN", "ja", "Japanese", "JPN"))
Key = tuple[int, int, int, int]  # season, episode, dialogue, utterance


@dataclass(slots=True)
class Clip:
    """One audio file of one row. `key` is None and `gender` "" only where `reason` is filled."""

    pair: str
    place: str
    split: str
    language: str
    path: str
    key: Key | None
    speaker: str
    gender: str
    emotion: str
    transcript: str
    english: str
    reason: str = ""

    @property
    def dialogue(self) -> tuple[int, int, int]:
        return self.key[:3]


def read_pair(root: Path, pair: Pair, genders: Mapping[str, str]) -> list[Clip]:
    """All clips of a pair, English and dubbed in turn, in the order train, dev, test.

    `genders` is what `genders.read` gives. Raises UserError as `csv_file.read_csv` does.
    """
    return [clip for split in SPLITS for clip in _read(root, pair, split, genders)]


def _read(root: Path, pair: Pair, split: str, genders: Mapping[str, str]) -> Iterator[Clip]:
    file = pair.csv(root, split)
    required = ("id", "English", pair.column, "emotion", "speaker", *NUMBERS)
    rows = [
        (number, {name: value.strip() for name, value in row.items()})
        for number, row in read_csv(file, required=required).records()
    ]
    wrong = _wrong_ids([row for _, row in rows])
    for (number, row), bad_id in zip(rows, wrong, strict=True):
        key = _key(row)
        name = normalized_name(row["speaker"])
        known = {
            "pair": pair.folder,
            "split": split,
            "key": None if isinstance(key, str) else key,
            "speaker": " ".join(row["speaker"].split()),
            "gender": genders.get(name) or "",
            "emotion": row["emotion"].lower(),
            "english": row["English"],
            "reason": bad_id or (key if isinstance(key, str) else _reason(row, genders.get(name))),
        }
        for language, audio, column in (
            ("en", "ENG", "English"),
            (pair.language, pair.audio, pair.column),
        ):
            place = f"{file}, row {number} ({language})"
            path = file.parent / audio / split / f"{split}_{_plain(row['id'])}.wav"
            yield Clip(
                place=place,
                language=language,
                path=place if bad_id else str(path),
                transcript=row[column],
                **known,
            )


def _plain(text: str) -> str:
    """An id as in a file's name: 12 where pandas made it 12.0."""
    number = NUMBER.fullmatch(text)
    return number[1] if number else text


def _wrong_ids(rows: list[dict[str, str]]) -> list[str]:
    """Why the id of each row names no clip, or ""; the first of equal rows keeps its clip."""
    rows_of: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        rows_of.setdefault(_plain(row["id"]), []).append(row)
    ambiguous = {name for name, same in rows_of.items() if any(row != same[0] for row in same)}
    reasons = []
    seen = set()
    for row in rows:
        name = _plain(row["id"])
        if not name:
            reasons.append("its id is empty")
        elif not ID.fullmatch(name):
            reasons.append(f"its id {quoted(name)} names no clip (letters, digits, - and _ do)")
        elif name in ambiguous:
            reasons.append("its id is that of another row too: which one the clip holds is unknown")
        else:
            reasons.append("its row is in the file twice" if name in seen else "")
        seen.add(name)
    return reasons


def _key(row: Mapping[str, str]) -> Key | str:
    """The numbers that identify the utterance, or why one is unknown."""
    numbers = {column: NUMBER.fullmatch(row[column]) for column in NUMBERS}
    for column, number in numbers.items():
        if number is None:
            return f"its {NUMBERS[column]} {quoted(row[column])} is no number"
    season, episode, dialogue, utterance = (int(number[1]) for number in numbers.values())
    return season, episode, dialogue, utterance


def _reason(row: Mapping[str, str], gender: str | None) -> str:
    if not row["emotion"]:
        return "its emotion is empty"
    if not row["speaker"]:
        return "its speaker is empty"
    if gender is None:
        return UNLISTED.format(" ".join(row["speaker"].split()))
    return "" if gender else UNKNOWN
