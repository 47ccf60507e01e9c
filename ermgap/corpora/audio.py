"""Reads clips, and excludes those that cannot be used before a model meets them.

    samples = read("clip.flac", 0.0, None)                # float32 [n], mono, 16 kHz
    table, excluded, cancelling = inspect(table)          # every clip decoded once

soundfile reads WAV, FLAC, Ogg Vorbis and Opus, and MP3; it releases the interpreter lock while it
decodes, so a few threads use all cores. `inspect` decodes in blocks, and no further than a clip may
be long, whatever its header says.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ermgap.corpora.containers import TRUNCATED, UnusableClip, open_audio
from ermgap.corpora.levels import Level
from ermgap.corpora.table import excluded_frame
from ermgap.errors import UserError
from ermgap.records.files import path_bytes

RATE = 16000
LONGEST_S = 30.0  # Whisper's window, hence the audio tower's
SHORTEST_S = 0.1  # under 0.03 s (three mel frames) the tower gives no position at all
FASTEST = 768_000  # Hz; no recorder is faster, and resampling takes memory with the rate
SLACK_S = 0.05  # a manifest's rounded end may lie this far behind the end of the file
TOO_SHORT = "shorter than the span that is named for it"


class Inspected(NamedTuple):
    """Usable rows, exclusions, and [rows] bool: whose channels nearly cancel in their mean."""

    table: pd.DataFrame
    excluded: pd.DataFrame
    cancelling: np.ndarray


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
        clip = _decode(path, start_s, end_s)
    except UnusableClip as problem:
        raise UserError(f"the clip {path} is {problem}; replace or remove it.") from problem
    samples = clip.samples
    if clip.rate != rate:
        from scipy.signal import resample_poly  # 0.4 s to import, and most corpora need none

        shared = math.gcd(clip.rate, rate)
        samples = resample_poly(samples, rate // shared, clip.rate // shared).astype(np.float32)
    return samples if window_s is None else samples[: round(window_s * rate)]


class _Clip(NamedTuple):
    """Mono float32 [n] at `rate` Hz; its file names a length of `promised` samples (None: none)."""

    samples: np.ndarray
    rate: int
    promised: int | None
    level: Level


def _decode(
    path: str | Path, start_s: float, end_s: float | None, *, longest_s: float = math.inf
) -> _Clip:
    """As much of a span as the file has; of a longer one than `longest_s` one sample more."""
    with open_audio(path, start_s=start_s) as file:
        if file.samplerate > FASTEST:
            raise UnusableClip(f"of more than {FASTEST:,} samples a second")
        span_s = math.inf if end_s is None or math.isnan(end_s) else end_s - start_s
        remaining = min(span_s * file.samplerate, longest_s * file.samplerate + 1)
        remaining = round(remaining) if math.isfinite(remaining) else math.inf
        level, parts = Level(file.channels), []
        while remaining > 0:
            size = min(remaining, file.block)
            block = file.read(size, dtype="float32", always_2d=True)
            level.add(block)
            parts.append(block.mean(axis=1, dtype=np.float32))
            remaining -= len(block)
            if len(block) < size:
                break
        samples = np.concatenate(parts) if len(parts) != 1 else parts[0]
        before = round(start_s * file.samplerate)
        promised = None if file.promised is None else file.promised - before
        return _Clip(samples, file.samplerate, promised, level)


def digest(path: str | Path, start_s: float = 0.0, end_s: float | None = None) -> str:
    """Hex sha256 of the file's bytes and of the span to the millisecond: a key of the audio."""
    end = "" if end_s is None or math.isnan(end_s) else f"{end_s:.3f}"
    return hashlib.sha256(f"{_file_digest(path)} {start_s:.3f} {end}".encode()).hexdigest()


def _file_digest(path: str | Path) -> str:
    stat = os.stat(name := path_bytes(path))
    return _hash(name, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _hash(path: bytes, size: int, changed: int) -> str:  # size and time only tell versions apart
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inspect(
    table: pd.DataFrame, *, strict: bool = False, window_s: float | None = None
) -> Inspected:
    """Decode every clip once; returns the usable rows with `end_s` filled in, and the exclusions.

    Excluded: missing, unreadable, truncated, damaged, empty, of unknown length, shorter than 0.1 s,
    longer than 30 s, non-finite, silent, constant, of an implausible level, with channels that
    cancel (ermgap.corpora.levels), and spans outside their file. `strict` raises UserError for the
    first of them, and when clips are longer than `window_s` seconds, which are otherwise kept
    (`crop_notes` counts them; `levels.notes` those whose channels nearly cancel).
    """
    spans = list(zip(table["path"], table["start_s"], table["end_s"], strict=True))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(_end_and_level, spans, chunksize=1))
    bad = np.array([isinstance(result, str) for result in results], dtype=bool)
    reasons, usable = ([r for r in results if isinstance(r, str) is kind] for kind in (True, False))
    if strict and reasons:
        raise UserError(
            f"the clip {table['path'].to_numpy()[bad][0]} is {reasons[0]}, and {len(reasons)} of "
            f"{len(table)} clips cannot be used; fix them, or omit --strict."
        )
    excluded = table.loc[bad, ["corpus", "path"]].assign(reason=reasons)
    kept = table[~bad].assign(end_s=[float(end) for end, _ in usable])
    if strict and window_s and (notes := crop_notes(kept, window_s)):
        raise UserError(f"{notes[0]}, which --strict refuses; give a longer window.")
    cancelling = np.array([level.cancelling for _, level in usable], dtype=bool)
    return Inspected(kept.reset_index(drop=True), excluded_frame(excluded), cancelling)


def _end_and_level(span: tuple[str, float, float]) -> tuple[float, Level] | str:
    """The end of the span in seconds and its level, or the reason why it cannot be used."""
    path, start, end = span
    end, name = None if math.isnan(end) else end, path_bytes(path)
    if not os.path.isfile(name):
        return "missing"
    if os.path.getsize(name) == 0:
        return "empty"
    try:
        clip = _decode(path, start, end, longest_s=LONGEST_S)
    except UnusableClip as problem:
        return str(problem)
    count, slack = len(clip.samples), SLACK_S * clip.rate
    span = math.inf if end is None else (end - start) * clip.rate
    wanted = min(span, LONGEST_S * clip.rate + 1)
    lengths = {
        TRUNCATED: clip.promised is not None and count < min(wanted, clip.promised) - slack,
        TOO_SHORT: count < wanted - slack and end is not None or not count and start,
        "empty": count == 0,
        f"longer than {LONGEST_S:.0f} s": count > LONGEST_S * clip.rate,
        f"shorter than {SHORTEST_S} s": count < SHORTEST_S * clip.rate,
    }
    problem = next((reason for reason, holds in lengths.items() if holds), "")
    if problem := problem or clip.level.problem(clip.samples):
        return problem
    # A span's own end stays as written, unless rounding has put it behind the end of the file.
    complete = end is not None and count >= round(span)
    return (end if complete else start + count / clip.rate), clip.level


def crop_notes(table: pd.DataFrame, window_s: float) -> tuple[str, ...]:
    """A sentence for each corpus with clips longer than the window, which are cut to it."""
    longer = table["end_s"] - table["start_s"] > window_s + 1e-3
    return tuple(
        f"{longer[part.index].sum()} of {len(part)} clips of {corpus} are longer than the window "
        f"and are cut to their first {window_s:g} s"
        for corpus, part in table.groupby("corpus", sort=False)
        if longer[part.index].any()
    )


def drop_copies(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table without clips whose bytes and span an earlier row has, and these as exclusions.

    A copy in another split would be leakage. Only files of equal size are hashed.
    """
    sizes = {path: os.path.getsize(path_bytes(path)) for path in table["path"].unique()}
    tally = Counter(sizes.values())
    bytes_of = {path: _file_digest(path) if tally[n] > 1 else path for path, n in sizes.items()}
    keys = [table["path"].map(bytes_of), table["start_s"].round(3), table["end_s"].round(3)]
    same = table.groupby(keys, dropna=False)["utterance_id"]
    copy, first = same.cumcount() > 0, same.transform("first")
    excluded = table.loc[copy, ["corpus", "path"]].assign(reason="a copy of " + first[copy])
    return table[~copy].reset_index(drop=True), excluded_frame(excluded)
