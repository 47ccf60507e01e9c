"""A folder in MELD-ST's official layout, with MELD's real rows or invented ones, and short noise.

    rows = meld_rows(shared_data / "meld_text")
    root = write(tmp_path, plan(rows, DEU=(9314, 1164, 1164), JPN=(8069, 1008, 1008), moved=60))

The dubbed texts are invented, and so is every sound: 8-bit noise of 0.12 to 0.17 s at 8 kHz, no two
clips alike. Most English is in both pairs; `moved` rows change places between the splits of one
(leakage). The damages ROWS, CLIPS and FILES come each with what must be said of it.
"""

from __future__ import annotations

import csv
import os
import random
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

SPLITS = {"train": "train", "dev": "valid", "test": "test"}
PAIRS = {"ENG_DEU": ("DEU", "German"), "ENG_JPN": ("JPN", "Japanese")}
KEY = ("season", "episode", "dia_id", "utt_id")
MELD = {
    "English": "Utterance", "emotion": "Emotion", "sentiment": "Sentiment", "speaker": "Speaker",
    "dia_id": "Dialogue_ID", "utt_id": "Utterance_ID", "season": "Season", "episode": "Episode",
}  # fmt: skip
CAST = (
    ("Rachel", "joy"), ("Ross", "anger"), ("Monica", "neutral"), ("Chandler", "sadness"),
    ("Phoebe", "surprise"), ("Joey", "fear"),
)  # fmt: skip
Row = dict[str, str]
Plan = dict[str, dict[str, list[Row]]]  # pair, then split


def meld_rows(folder: Path) -> list[Row]:
    """MELD's 13,708 rows in MELD-ST's columns, `part` the MELD split that they come from."""
    rows = []
    for part in SPLITS:
        with open(folder / f"{part}_sent_emo.csv", encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                row = {name: line[source] for name, source in MELD.items()}
                rows.append(row | {"part": part})
    return rows


def made_rows(dialogues: int = 12, turns: int = 4) -> list[Row]:
    """Invented rows of six known speakers: `turns` utterances in each of `dialogues`."""
    rows = []
    for dialogue in range(dialogues):
        for turn in range(turns):
            speaker, emotion = CAST[(dialogue + turn) % len(CAST)]
            numbers = {"season": 1, "episode": 1 + dialogue // 4, "dia_id": dialogue}
            rows.append(
                {"English": f"Line {turn}, of scene {dialogue}", "emotion": emotion,
                 "sentiment": "neutral", "speaker": speaker, "utt_id": str(turn), "part": "train",
                 **{name: str(number) for name, number in numbers.items()}}
            )  # fmt: skip
    return rows


def tidy() -> Plan:
    """Eight scenes in train, two in dev, two in test, in both pairs alike: nothing leaks."""
    rows = made_rows()
    return {pair: {"train": rows[:32], "dev": rows[32:40], "test": rows[40:]} for pair in PAIRS}


def plan(
    rows: Sequence[Row],
    *,
    DEU: tuple[int, int, int],
    JPN: tuple[int, int, int],
    moved: int,
    seed: int = 0,
) -> Plan:
    """Subsets of `rows` of the given sizes (train, dev, test), whole dialogues where that fits.

    JPN's rows are DEU's but for about 3 %. `moved` rows of JPN's train change places with rows of
    its test, and as many with rows of its dev.
    """
    chance = random.Random(seed)
    order = chance.sample(range(len(rows)), len(rows))
    first = order[: sum(DEU)]
    spare = order[sum(DEU) :][: sum(JPN) // 33]
    second = chance.sample(first, sum(JPN) - len(spare)) + spare
    scenes = list(dict.fromkeys(_scene(row) for row in rows))
    rank = dict(zip(chance.sample(scenes, len(scenes)), range(len(scenes)), strict=True))
    result = {}
    for pair, hyperparameters, sizes in (("ENG_DEU", first, DEU), ("ENG_JPN", second, JPN)):
        ranked = sorted(hyperparameters, key=lambda i: (rank[_scene(rows[i])], i))
        train, dev, test = sizes
        result[pair] = {
            "test": [rows[i] for i in ranked[:test]],
            "dev": [rows[i] for i in ranked[test : test + dev]],
            "train": [rows[i] for i in ranked[test + dev :]],
        }
    for other in ("test", "dev"):
        _swap(result["ENG_JPN"]["train"], result["ENG_JPN"][other], moved, chance)
    return {pair: {split: splits[split] for split in SPLITS} for pair, splits in result.items()}


def _scene(row: Row) -> tuple[str, ...]:
    return row["part"], row["season"], row["episode"], row["dia_id"]


def _swap(here: list[Row], there: list[Row], count: int, chance: random.Random) -> None:
    places = chance.sample(range(len(here)), count), chance.sample(range(len(there)), count)
    for a, b in zip(*places, strict=True):
        here[a], there[b] = there[b], here[a]


def write(root: Path, plan: Plan) -> Path:
    """The CSVs and all clips under `root`, which is returned; the pairs' English is linked."""
    number = 0
    english: dict[tuple, Path] = {}
    for pair, splits in plan.items():
        audio, column = PAIRS[pair]
        for split, rows in splits.items():
            csv_of(root, pair, split).parent.mkdir(parents=True, exist_ok=True)
            write_csv(csv_of(root, pair, split), table(rows, column))
            for folder in ("ENG", audio):
                (root / pair / folder / split).mkdir(parents=True, exist_ok=True)
            for index, row in enumerate(rows):
                spoken = clip_of(root, pair, "ENG", split, index)
                same = english.setdefault((*_scene(row), row["utt_id"]), spoken)
                if same is spoken:
                    spoken.write_bytes(noise(number := number + 1))
                else:
                    os.link(same, spoken)
                dubbed = clip_of(root, pair, audio, split, index)
                dubbed.write_bytes(noise(number := number + 1))
    return root


def csv_of(root: Path, pair: str, split: str) -> Path:
    return root / pair / f"{PAIRS[pair][0].lower()}_{SPLITS[split]}.csv"


def clip_of(root: Path, pair: str, audio: str, split: str, index: int) -> Path:
    return root / pair / audio / split / f"{split}_{index}.wav"


def table(rows: Iterable[Row], column: str) -> list[Row]:
    """The rows as the CSV has them: an id counted from 0, and the dubbed text under `column`."""
    names = ("English", column, "emotion", "sentiment", "speaker", "dia_id", "utt_id")
    return [
        {"id": str(index), **{name: (row | {column: f"{column}: {row['English']}"})[name]
                              for name in (*names, "season", "episode")}}
        for index, row in enumerate(rows)
    ]  # fmt: skip


def write_csv(file: Path, rows: Sequence[Row], *, columns: Sequence[str] | None = None) -> None:
    with open(file, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def noise(number: int, *, seconds: float | None = None, rate: int = 8000) -> bytes:
    """A WAV of 8-bit mono noise whose bytes belong to `number` alone."""
    frames = 960 + number % 400 if seconds is None else round(seconds * rate)
    samples = random.Random(number).randbytes(frames)
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + frames, b"WAVE", b"fmt ", 16, 1, 1, rate,
                       rate, 1, 8)  # fmt: skip
    return head + struct.pack("<4sI", b"data", frames) + samples


def read_csv(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def edit(file: Path, index: int = 0, **values: str) -> None:
    """Write `values` into a row of a CSV, the first by default."""
    table = read_csv(file)
    table[index].update(values)
    write_csv(file, table)


ROWS = {  # what is written into the first row of a CSV, the reason, and the clips it takes
    "empty id": ({"id": ""}, "its id is empty", 2),
    "id that climbs": ({"id": "../../../x"}, "its id '../../../x' names no clip", 2),
    "id that is absolute": ({"id": "/etc/x"}, "its id '/etc/x' names no clip", 2),
    "id with a backslash": ({"id": r"..\x"}, "names no clip", 2),
    "id with a dot": ({"id": "0.wav"}, "its id '0.wav' names no clip", 2),
    "id of another row": ({"id": "1"}, "its id is that of another row too", 4),
    "id without a clip": ({"id": "99"}, "missing", 1),  # English comes from the other pair
    "season in words": ({"season": "one"}, "its season 'one' is no number", 2),
    "negative episode": ({"episode": "-1"}, "its episode '-1' is no number", 2),
    "empty dialogue": ({"dia_id": " "}, "its dialogue '' is no number", 2),
    "half an utterance": ({"utt_id": "1.5"}, "its utterance '1.5' is no number", 2),
    "unknown emotion": ({"emotion": "boredom"}, "emotion 'boredom' is not one of", 2),
    "empty emotion": ({"emotion": ""}, "its emotion is empty", 2),
    "empty speaker": ({"speaker": "  "}, "its speaker is empty", 2),
    "unlisted speaker": ({"speaker": "No  One"}, "the speaker 'No One' is not in the file", 2),
    "speaker of unknown gender": ({"speaker": "Nurse"}, "the speaker's gender is unknown", 2),
    "group": ({"speaker": "Ross and Rachel"}, "the speaker's gender is unknown", 2),
    "numbers of another row": ({"utt_id": "1"}, "a row of other words has its season", 3),
}


def half(path: Path) -> None:
    data = noise(1, seconds=1)
    path.write_bytes(data[: len(data) // 2])


CLIPS = {  # what happens to a clip, and the reason
    "missing": (Path.unlink, "missing"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("no audio"), "unreadable"),
    "truncated": (half, "truncated or damaged"),
    "silent": (lambda path: soundfile.write(path, np.zeros(8000), 8000), "silent"),
    "not a number": (
        lambda path: soundfile.write(path, np.full(8000, np.nan), 8000, subtype="FLOAT"),
        "not finite",
    ),
    "long": (lambda path: path.write_bytes(noise(1, seconds=30.5)), "longer than 30 s"),
    "short": (lambda path: path.write_bytes(noise(1, seconds=0.05)), "shorter than 0.1 s"),
}


def replaced(old: str, new: str):
    def damage(file: Path) -> None:
        file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")

    return damage


def cut_first_row(file: Path) -> None:
    head, first, rest = file.read_text(encoding="utf-8").split("\n", 2)
    file.write_text("\n".join([head, first.rsplit(",", 2)[0], rest]), encoding="utf-8")


FILES = {  # what happens to a CSV, and the sentence
    "a column is missing": (lambda f: write_csv(f, [{"id": "0", "English": "x"}]),
                            "lacks the column German, emotion, speaker, season, episode"),
    "a column is renamed": (replaced("speaker", "Speaker_Name"), "lacks the column speaker; it"),
    "a column stands twice": (replaced("sentiment", "emotion"), "has the column 'emotion' twice"),
    "it has colons": (lambda f: f.write_text(f.read_text().replace(",", ":")), "lacks the"),
    "it is not UTF-8": (lambda f: f.write_bytes("id,ä\n1,ö\n".encode("latin-1")), "is not UTF-8"),
    "a quote is left open": (replaced('scene 0"', "scene 0"), "is not a valid CSV"),
    "a row is short": (cut_first_row, "row 2: it has 8 fields where the header has 10"),
    "a row is long": (replaced("Rachel,", "Rachel,x,"), "row 2: it has 11 fields"),
    "it is empty": (lambda f: f.write_text(""), "is empty"),
    "it has only a header": (lambda f: f.write_text(f.read_text().split("\n")[0]), "no rows"),
}  # fmt: skip
