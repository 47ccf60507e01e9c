"""Reading clips, and finding those that cannot be used before a model meets them.

    samples = read("clip.flac", 0.0, None)            # float32 [n], mono, 16 kHz
    table, excluded = inspect(table, strict=False)    # every clip decoded once

soundfile reads WAV, FLAC, Ogg Vorbis and Opus, and MP3; it releases the interpreter lock while it
decodes, so a few threads use all cores.
"""

from __future__ import annotations

import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from ermgap.corpora.table import excluded_frame
from ermgap.errors import UserError

RATE = 16000
LONGEST_S = 30.0  # Whisper's window, hence the audio tower's
SHORTEST_S = 0.1  # under 0.03 s (three mel frames) the tower gives no position at all
FASTEST = 768_000  # Hz; no recorder is faster, and resampling takes memory with the rate
SLACK_S = 0.05  # a manifest's rounded end may lie this far behind the end of the file


class _Unusable(Exception):
    """A clip that is left out; the message is the recorded reason."""


def read(
    path: str | Path,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    rate: int = RATE,
    window_s: float | None = None,
) -> np.ndarray:
    """Samples of a clip: float32 [n] in about [-1, 1], the mean of its channels, at `rate` Hz.

    `end_s` None or NaN is the end of the file. At most `window_s` seconds are returned, always a
    prefix of what comes back without a window. Raises UserError naming a file that cannot be read.
    """
    try:
        samples, native = _decode(path, start_s, end_s)
    except _Unusable as problem:
        raise UserError(f"the clip {path} is {problem}; replace it or take it out.") from problem
    if native != rate:
        from scipy.signal import resample_poly  # 0.4 s to import, and most corpora need none

        shared = math.gcd(native, rate)
        samples = resample_poly(samples, rate // shared, native // shared).astype(np.float32)
    return samples if window_s is None else samples[: round(window_s * rate)]


def _decode(path: str | Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int]:
    whole = end_s is None or math.isnan(end_s)
    try:
        with soundfile.SoundFile(str(path)) as file:
            if start_s:
                file.seek(min(round(start_s * file.samplerate), file.frames))
            frames = -1 if whole else round((end_s - start_s) * file.samplerate)
            samples = file.read(frames, dtype="float32", always_2d=True)
            return samples.mean(axis=1, dtype=np.float32), file.samplerate
    except (soundfile.LibsndfileError, OSError, RuntimeError, ValueError) as problem:
        raise _Unusable("unreadable") from problem


def digest(path: str | Path, start_s: float = 0.0, end_s: float | None = None) -> str:
    """Hex sha256 of the file's bytes and of the span to the millisecond: a key of the audio."""
    end = "" if end_s is None or math.isnan(end_s) else f"{end_s:.3f}"
    return hashlib.sha256(f"{_file_digest(path)} {start_s:.3f} {end}".encode()).hexdigest()


def _file_digest(path: str | Path) -> str:
    stat = os.stat(path)
    return _hash(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _hash(path: str, size: int, changed: int) -> str:  # size and time only tell versions apart
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inspect(
    table: pd.DataFrame, *, strict: bool = False, window_s: float | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every clip once; returns (the usable rows with `end_s` filled in, the exclusions).

    Left out: missing, unreadable, truncated, damaged, empty, shorter than 0.1 s, longer than 30 s,
    all-zero or non-finite audio, and spans outside their file. `strict` raises UserError for the
    first of them, and when clips are longer than `window_s` seconds, which are otherwise kept
    (`crop_notes` counts them).
    """
    spans = list(zip(table["path"], table["start_s"], table["end_s"], strict=True))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        ends = list(pool.map(_usable, spans, chunksize=1))
    bad = np.array([isinstance(end, str) for end in ends], dtype=bool)
    found = [end for end in ends if isinstance(end, str)]
    if strict and found:
        raise UserError(
            f"the clip {table['path'].to_numpy()[bad][0]} is {found[0]}, and {len(found)} of "
            f"{len(table)} clips cannot be used; mend them or leave out --strict."
        )
    left_out = table.loc[bad, ["corpus", "path"]].assign(reason=found)
    kept = table[~bad].assign(end_s=[float(end) for end in ends if not isinstance(end, str)])
    if strict and window_s and (notes := crop_notes(kept, window_s)):
        raise UserError(f"{notes[0]}, which --strict refuses; give a longer window.")
    return kept.reset_index(drop=True), excluded_frame([left_out])


def _usable(span: tuple[str, float, float]) -> float | str:
    """The end of the span in seconds, or the reason why it cannot be used."""
    path, start, end = span
    try:
        return _examine(path, start, None if math.isnan(end) else end)
    except _Unusable as problem:
        return str(problem)


def _examine(path: str, start: float, end: float | None) -> float:
    if not os.path.isfile(path):
        raise _Unusable("missing")
    if os.path.getsize(path) == 0:
        raise _Unusable("empty")
    if _riff_is_cut(path):
        raise _Unusable("truncated or damaged")
    try:
        told = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as problem:
        raise _Unusable("unreadable") from problem
    if told.samplerate > FASTEST:
        raise _Unusable(f"of more than {FASTEST:,} samples a second")
    length = told.duration
    if start and start >= length or end is not None and end > length + SLACK_S:
        raise _Unusable("shorter than the span that is named for it")
    end = length if end is None else min(end, length)
    if end - start > LONGEST_S:
        raise _Unusable(f"longer than {LONGEST_S:.0f} s")
    _listen(path, start, end)
    return end


def _riff_is_cut(path: str) -> bool:
    """A WAV that is shorter than its header says, which libsndfile reads without a word."""
    with open(path, "rb") as file:
        mark, size = file.read(4), int.from_bytes(file.read(4), "little")
    streamed = size >= 0x7FFFF000  # written to a pipe: the length was not known
    return mark == b"RIFF" and not streamed and size > os.path.getsize(path) + 1024


def _listen(path: str, start: float, end: float) -> None:
    samples, rate = _decode(path, start, end)
    if len(samples) == 0:
        raise _Unusable("empty")
    if len(samples) / rate < end - start - SLACK_S:
        raise _Unusable("truncated or damaged")
    if len(samples) / rate < SHORTEST_S:
        raise _Unusable(f"shorter than {SHORTEST_S} s")
    if not np.isfinite(samples).all():
        raise _Unusable("not finite (NaN or infinite samples)")
    if not samples.any():
        raise _Unusable("silent (every sample is zero)")


def crop_notes(table: pd.DataFrame, window_s: float) -> tuple[str, ...]:
    """A sentence per corpus that has clips longer than the window, of which the start is used."""
    longer = table["end_s"] - table["start_s"] > window_s + 1e-3
    return tuple(
        f"{longer[part.index].sum()} of {len(part)} clips of {corpus} are longer than the window "
        f"and are cut to their first {window_s:g} s"
        for corpus, part in table.groupby("corpus", sort=False)
        if longer[part.index].any()
    )


def drop_copies(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table without clips whose bytes and span an earlier row has, and those exclusions.

    A copy in another split would be leakage. Only files of equal size are hashed.
    """
    sizes = {path: os.path.getsize(path) for path in table["path"].unique()}
    tally = pd.Series(sizes).value_counts()
    bytes_of = {
        path: _file_digest(path) if tally[size] > 1 else path for path, size in sizes.items()
    }
    keys = pd.DataFrame(
        {
            "bytes": table["path"].map(bytes_of),
            "start": table["start_s"].round(3),
            "end": table["end_s"].round(3).fillna(-1.0),
        }
    )
    copy = keys.duplicated()
    first = dict(zip(map(tuple, keys[~copy].to_numpy()), table["utterance_id"][~copy], strict=True))
    reasons = [f"a copy of {first[tuple(key)]}" for key in keys[copy].to_numpy()]
    left_out = table.loc[copy, ["corpus", "path"]].assign(reason=reasons)
    return table[~copy].reset_index(drop=True), excluded_frame([left_out])
