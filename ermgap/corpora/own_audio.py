"""A user's own audio files as a table of utterances, with a problem where one cannot be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ermgap import config
from ermgap.config import SPEECH, SPEECH_AND_TEXT
from ermgap.corpora import audio, audio_files
from ermgap.corpora.clip_paths import ClipPaths, require_file
from ermgap.corpora.csv_file import read_csv
from ermgap.corpora.table import frame
from ermgap.errors import UserError
from ermgap.records.files import path_bytes

READ = "libsndfile reads WAV, FLAC, Ogg, Opus, MP3 and AIFF; convert others"


def table(
    files: Sequence[Path | str],
    settings: config.Config,
    *,
    transcripts: Path | str | None = None,
    language: str = "",
) -> pd.DataFrame:
    """The utterances of `files`, in order; their gender is unknown and their emotion a placeholder.

    Args:
        files: audio files, and folders that are searched for them.
        settings: of the adapter (`saved_adapter.config_of`): labels, modalities and window.
        transcripts: a CSV with `path` (relative to its folder, or to here) and `transcript`.
        language: of the speech (ISO 639-1), or empty.

    Besides `ermgap.corpora.table`: modality, note (clips that are cut) and problem, which says why
    a file cannot be used. Raises UserError for transcripts that are unreadable, lacking or useless.
    """
    trained_on = settings.data.modalities
    if transcripts is not None and SPEECH_AND_TEXT not in trained_on:
        raise UserError("this adapter was trained on speech alone; omit --transcripts.")
    if transcripts is None and SPEECH not in trained_on:
        raise UserError(
            "this adapter was trained on speech with its transcript; give --transcripts FILE.csv "
            "with the columns path and transcript."
        )
    texts = {} if transcripts is None else _read_transcripts(Path(transcripts))
    rows = _inspected(files, settings, language)
    rows["transcript"] = [texts.get(_real(path), "") for path in rows["path"]]
    if texts and not rows["transcript"].any():
        raise UserError(f"{transcripts} names none of the files; its paths are relative to it.")
    rows["modality"] = np.where(
        (rows["transcript"] != "") & (SPEECH_AND_TEXT in trained_on), SPEECH_AND_TEXT, SPEECH
    )
    lacking = (rows["problem"] == "") & ~rows["modality"].isin(trained_on)
    rows.loc[lacking, "problem"] = "without a transcript, which this adapter needs"
    return rows


def _real(path: str) -> bytes:
    return os.path.realpath(path_bytes(path))


def _read_transcripts(file: Path) -> dict[bytes, str]:
    """Transcript by the real path of its clip; UserError for a CSV that cannot be read."""
    clips, texts = ClipPaths(file.parent, outside=True), {}
    for number, row in read_csv(file, required=("path", "transcript")).rows:
        place = f"{file}, row {number}"
        require_file(row["path"], place=place)
        near = clips.find(row["path"], place=place)
        path = near if os.path.exists(path_bytes(near)) else row["path"]
        texts[_real(path)] = row["transcript"].strip()
    return texts


def _inspected(files: Sequence[Path | str], settings: config.Config, language: str) -> pd.DataFrame:
    """The utterances with `end_s`, note and problem, every clip decoded once."""
    paths, window = _paths(files), settings.backbone.window_s
    placeholders = {"corpus": "own", "language": language, "gender": "", "speaker": "own"}
    placeholders["emotion"] = settings.data.labels[0]
    named = [{"path": path, "utterance_id": f"own/{i:06d}"} for i, (path, _) in enumerate(paths)]
    rows = frame([placeholders | name for name in named])
    rows["problem"] = [problem for _, problem in paths]
    kept, excluded, cancelling = audio.inspect(rows[rows["problem"] == ""])
    reasons = dict(zip(excluded["path"], excluded["reason"], strict=True))
    inspected = rows["path"].map(lambda path: reasons.get(path, ""))
    inspected = inspected.replace("unreadable", f"unreadable ({READ})")
    rows["problem"] = rows["problem"].where(rows["problem"] != "", inspected)
    ends = rows["utterance_id"].map(kept.set_index("utterance_id")["end_s"])
    cancel = rows["utterance_id"].isin(kept["utterance_id"][cancelling])
    notes = [
        "; ".join(
            [f"cut to its first {window} s"] * (end > window + 1e-3)
            + ["its channels cancel for the most part in their mean"] * bool(cancels)
        )
        for end, cancels in zip(ends, cancel, strict=True)
    ]
    return rows.assign(end_s=ends, note=notes)


def _paths(files: Sequence[Path | str]) -> list[tuple[str, str]]:
    """(path, problem or "") of every file, those of a folder in order; see `audio_files.search`."""
    paths = []
    for name in map(Path, files):
        searched = audio_files.search(name) if name.is_dir() else [(name, "")]
        paths += searched or [(name, f"a folder without audio ({READ})")]
    return [(str(path), problem) for path, problem in paths]
