"""Made clips for the tests of reading audio: tones, a voice-like sound, MP3s, and their table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from ermgap.corpora import table as tables

RATE = 44100


def tone(path: Path, *, hertz: float = 440.0, seconds: float = 1.0, rate: int = 16000) -> Path:
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * time), rate)
    return path


def table_of(*paths: Path, start: float = 0.0, end: float = np.nan) -> pd.DataFrame:
    return tables.frame(
        [
            {"utterance_id": f"c/{i}", "corpus": "c", "language": "en", "gender": "female",
             "emotion": "joy", "speaker": "s", "path": str(path), "start_s": start, "end_s": end}
            for i, path in enumerate(paths)
        ]
    )  # fmt: skip


def voice(seconds: float, *, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 12))
    return 0.15 * tones + 0.005 * np.random.default_rng(0).normal(size=len(time))


def mp3(path: Path, *parts: np.ndarray, indexed: bool) -> Path:
    """A stream of variable bitrate, with its index frame or, as a recorder writes it, without."""
    samples = np.concatenate(parts)
    options = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.5}
    soundfile.write(path, samples, RATE, **options)
    if not indexed:
        content = path.read_bytes()
        index = max(content.find(b"Xing"), content.find(b"Info"))
        path.write_bytes(content[content.find(b"\xff\xfb", index) :])
    return path
