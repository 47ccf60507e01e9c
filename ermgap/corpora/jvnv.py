"""Loader of JVNV (Japanese, acted, four speakers, verbal content with nonverbal vocalisations).

    python sweeps/pareto.py --data jvnv=PATH

PATH is any folder over the clips (`F1/anger/free/F1_anger_free_01.wav` officially; .flac is read
too). The name holds speaker, emotion, session (an attribute: regular, with the nonverbal phrases of
the script, or free) and number. Transcripts come from the
`transcription.csv` below PATH: rows `anger_free_01|nonverbal|text` officially, one for all
speakers; a speaker in the name, an ending, commas or tabs, a header and two columns are read too.
Without that file transcripts are empty, and a note says so.
"""

from __future__ import annotations

import csv
import glob
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ermgap.corpora.folder import load_named
from ermgap.corpora.table import Corpus

EMOTIONS = ("anger", "disgust", "fear", "happy", "sad", "surprise")  # happy, sad: ALIASES
SPOKEN = rf"(?P<emotion>{'|'.join(EMOTIONS)})_(?P<session>regular|free)_(?P<number>\d+)"
NAME = re.compile(rf"(?P<speaker>[FM]\d+)_{SPOKEN}")
ROW = re.compile(rf"(.*[/\\])?(?P<name>([FM]\d+_)?{SPOKEN})(\.\w+)?")
SPEAKERS = {"F1": "female", "F2": "female", "M1": "male", "M2": "male"}
PROVENANCE = {"gender": "annotated"}  # by the speakers' names, F1 to M2
TRANSCRIPTS = "transcription.csv"
TEXT = ("text", "transcript", "transcription", "sentence", "all")


def load(path: Path | None) -> Corpus:
    """The table of JVNV (`jvnv/F1_anger_free_01`, speaker and group `jvnv_F1`), without splits.

    Raises UserError when `path` is not a folder with .wav or .flac files. A transcription.csv that
    cannot be read is a note, since speech alone can be used without it.
    """
    example = "F1/anger/free/F1_anger_free_01.wav"
    corpus = load_named(
        path,
        corpus="jvnv",
        example=example,
        name=NAME,
        describe=_describe,
        attributes=("session",),
        provenance=PROVENANCE,
    )
    texts, problem = _transcripts(path)
    table = corpus.table
    stems = table["utterance_id"].str.removeprefix("jvnv/")
    own = [texts.get(stem) or texts.get(stem.partition("_")[2], "") for stem in stems]
    table = table.assign(transcript=pd.Series(own, index=table.index, dtype=str))
    return replace(corpus, table=table, notes=tuple(_notes(table, problem)))


def _describe(name: re.Match) -> dict | str:
    if name["speaker"] not in SPEAKERS:
        return f"JVNV has no speaker {name['speaker']}"
    return {
        "language": "ja",
        "gender": SPEAKERS[name["speaker"]],
        "session": name["session"],
        "emotion": name["emotion"],
        "speaker": f"jvnv_{name['speaker']}",
    }


def _notes(table: pd.DataFrame, problem: str) -> Iterator[str]:
    silent = (table["transcript"] == "").sum()
    if silent:
        yield (
            f"{silent} of {len(table)} clips of jvnv have no transcript "
            f"({problem or f'{TRANSCRIPTS} does not name them'}): use speech alone"
        )
    written = table[table["transcript"] != ""]
    shared = written.groupby("transcript")["speaker"].transform("nunique") > 1
    if shared.any():
        yield (
            f"{shared.sum()} of {len(table)} clips of jvnv share their sentence with another "
            "speaker, and each sentence was written for one emotion: with transcripts in the "
            "prompt, a split by speaker lets a model memorise the emotions of dev"
        )


def _transcripts(root: Path) -> tuple[dict[str, str], str]:
    """Texts by name (F1_anger_free_01 or anger_free_01), and why there are none, or ""."""
    pattern = os.path.join(glob.escape(str(root)), "**", TRANSCRIPTS)
    files = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not files:
        return {}, f"there is no {TRANSCRIPTS}"
    try:
        texts = _parse(Path(files[0]).read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}, f"{TRANSCRIPTS} is not a CSV in UTF-8"
    return texts, "" if texts else f"{TRANSCRIPTS} has no row like anger_free_01|...|text"


def _parse(lines: list[str]) -> dict[str, str]:
    """Texts by name; the text is the last column, or the one that a header calls so."""
    mark = next((mark for mark in "|\t" if any(mark in line for line in lines)), ",")
    quoting = csv.QUOTE_MINIMAL if mark == "," else csv.QUOTE_NONE
    column = -1
    texts: dict[str, str] = {}
    for fields in csv.reader(lines, delimiter=mark, quoting=quoting):
        name = ROW.fullmatch(fields[0].strip()) if fields else None
        if name and len(fields) > 1:
            texts[name["name"]] = fields[min(column, len(fields) - 1)].strip()
        elif not texts and not name:
            heads = [field.strip().lower() for field in fields]
            column = next((heads.index(name) for name in TEXT if name in heads), -1)
    return texts
