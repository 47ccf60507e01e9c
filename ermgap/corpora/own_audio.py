"""A person's own audio as a table of utterances: what is asked for, found, and cannot be used.

    rows = table(["clip.wav", "folder/"], settings, transcripts="said.csv")
    usable = rows[rows["problem"] == ""]

Neither torch nor Ray is imported here.
"""

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
    """The utterances asked for, in order; their gender and emotion are fillers.

    Args:
        files: audio files, and folders that are searched for them.
        settings: of the adapter (`saved_adapter.config_of`): labels, modalities and window.
        transcripts: a CSV with `path` (relative to its folder, or to here) and `transcript`.
        language: of the speech (ISO 639-1), or empty.

    Besides `ermgap.corpora.table`: modality, note (clips that are cut) and problem, which says why
    a file cannot be used. Raises UserError for transcripts that are unreadable, lacking or useless.
    """
    known = settings.data.modalities
    given = {} if transcripts is None else _read_transcripts(Path(transcripts))
    _require_modality(known, asked=transcripts is not None)
    made = _examined(files, settings, language)
    made["transcript"] = [given.get(_real(path), "") for path in made["path"]]
    if given and not made["transcript"].any():
        raise UserError(f"{transcripts} names none of the files; its paths are relative to it.")
    made["modality"] = np.where(
        (made["transcript"] != "") & (SPEECH_AND_TEXT in known), SPEECH_AND_TEXT, SPEECH
    )
    lacking = (made["problem"] == "") & ~made["modality"].isin(known)
    made.loc[lacking, "problem"] = "without a transcript, which this adapter needs"
    return made


def _require_modality(known: Sequence[str], *, asked: bool) -> None:
    if asked and SPEECH_AND_TEXT not in known:
        raise UserError("this adapter was trained on speech alone; leave out --transcripts.")
    if not asked and SPEECH not in known:
        raise UserError(
            "this adapter was trained on speech with its transcript; give --transcripts FILE.csv "
            "with the columns path and transcript."
        )


def _real(path: str) -> bytes:
    return os.path.realpath(path_bytes(path))


def _read_transcripts(file: Path) -> dict[bytes, str]:
    """Transcript by the real path of its clip; UserError for a CSV that cannot be read."""
    clips, found = ClipPaths(file.parent, outside=True), {}
    for row, named in read_csv(file, required=("path", "transcript")).records():
        place = f"{file}, row {row}"
        require_file(named["path"], place=place)
        near = clips.find(named["path"], place=place)
        path = near if os.path.exists(path_bytes(near)) else named["path"]
        found[_real(path)] = named["transcript"].strip()
    return found


def _examined(files: Sequence[Path | str], settings: config.Config, language: str) -> pd.DataFrame:
    """The utterances with `end_s`, note and problem, every clip decoded once."""
    rows, window = [], settings.backbone.window_s
    for path, problem in _found(files):
        rows.append({"path": path, "problem": problem, "utterance_id": f"own/{len(rows):06d}"})
    filler = {"corpus": "own", "language": language, "gender": "female", "speaker": "own"}
    made = frame([row | filler | {"emotion": settings.data.labels[0]} for row in rows])
    made["problem"] = [row["problem"] for row in rows]
    kept, left_out, cancelling = audio.inspect(made[made["problem"] == ""])
    reasons = dict(zip(left_out["path"], left_out["reason"], strict=True))
    bad = made["path"].isin(reasons) & (made["problem"] == "")
    made.loc[bad, "problem"] = made["path"][bad].map(reasons)
    made["problem"] = made["problem"].replace("unreadable", f"unreadable ({READ})")
    ends = made["utterance_id"].map(kept.set_index("utterance_id")["end_s"])
    cancel = made["utterance_id"].isin(kept["utterance_id"][cancelling])
    notes = [
        "; ".join(
            [f"cut to its first {window} s"] * (end > window + 1e-3)
            + ["its channels cancel for the most part in their mean"] * bool(cancels)
        )
        for end, cancels in zip(ends, cancel, strict=True)
    ]
    return made.assign(end_s=ends, note=notes)


def _found(files: Sequence[Path | str]) -> list[tuple[str, str]]:
    """(path, problem or "") of every file asked for, those of a folder in order.

    Hidden files and what macOS keeps beside a file are passed over; audio that cannot be decoded
    here is not.
    """
    found = []
    for name in map(Path, files):
        if not name.is_dir():
            found.append((str(name), ""))
            continue
        readable, foreign = audio_files.search(name)
        inside = [(str(path), "") for path in readable]
        inside += [(str(path), audio_files.unsupported_name(path)) for path in foreign]
        found += sorted(inside) or [(str(name), f"a folder without audio ({READ})")]
    return found
