"""Counts the frames of an MPEG stream (MP3, MP2) and finds where they begin and end.

A decoder takes the length from the index frame (Xing, Info or VBRI) that most encoders write first;
without it, from the size of the first frame, which is wrong by any factor where the bitrate varies.
The layout of a header is that of ISO/IEC 11172-3, 2.4.1.3. Layer I and streams of free bitrate are
not counted.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

_RATES = (44100, 48000, 32000)
_KBITS = {
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # by (1 for MPEG 1, 2 for MPEG 2 and 2.5; layer)
AHEAD = 1 << 14  # bytes that are searched for the next frame; mpg123 gives up after 1,024


@dataclass(frozen=True)
class FrameHeader:
    """The first four bytes of a frame: its size in bytes, samples a channel, and rate in Hz."""

    size: int
    samples: int
    rate: int
    kind: tuple[int, int]  # version, layer and rate: the same in every frame of a stream


@dataclass(frozen=True)
class Stream:
    """Bytes `start` to `end` hold `frames` whole frames of `samples` a channel.

    `declared` is the number of frames that an index frame names, None without one; `xing` whether
    libsndfile reads that kind of index. The index frame itself lies before `start`.
    """

    start: int
    end: int
    frames: int
    samples: int
    declared: int | None
    xing: bool


def header(mark: bytes) -> FrameHeader | None:
    """The header that these four bytes are, or None."""
    return _header(mark[1], mark[2]) if len(mark) >= 4 and mark[0] == 0xFF else None


@lru_cache(maxsize=4096)
def _header(second: int, third: int) -> FrameHeader | None:
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bitrate, rate = third >> 4, third >> 2 & 3
    if second < 0xE0 or version == 1 or layer not in (2, 3) or bitrate in (0, 15) or rate == 3:
        return None
    hertz = _RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    old = 1 if version == 3 else 2
    samples = 576 if (old, layer) == (2, 3) else 1152
    kbits = _KBITS[old, layer][bitrate - 1]
    size = samples // 8 * 1000 * kbits // hertz + (third >> 1 & 1)
    return FrameHeader(size, samples, hertz, (second & 0xFE, third & 0x0C))


def count_frames(file: io.BufferedIOBase, at: int, end: int) -> Stream | None:
    """Count the frames between two bytes of a file; None where there is no stream to count."""
    at = _next(file, _after_tags(file, at), end, kind=None)
    if at is None:
        return None
    first = header(peek(file, at, 4))
    declared, xing = _index(peek(file, at, first.size))
    start = at = at if declared is None else at + first.size
    last, frames = start, 0
    while at is not None:
        frame = header(peek(file, at, 4))
        if frame and frame.kind == first.kind and at + frame.size <= end:
            frames += 1
            at = last = at + frame.size
        else:
            at = _next(file, max(_after_tags(file, at), at + 1), end, kind=first.kind)
    return Stream(start, last, frames, first.samples, declared or None, xing)


def peek(file: io.BufferedIOBase, at: int, count: int) -> bytes:
    """The bytes at a position of a file, fewer where it ends."""
    file.seek(at)
    return file.read(count)


def _after_tags(file: io.BufferedIOBase, at: int) -> int:
    """The byte after the ID3v2 tags that may lie here."""
    while (mark := peek(file, at, 10))[:3] == b"ID3" and len(mark) == 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(mark[6:], (21, 14, 7, 0)))  # noqa: B905
        at += 10 + size + (10 if mark[5] & 0x10 else 0)
    return at


def _next(file: io.BufferedIOBase, at: int, end: int, *, kind) -> int | None:
    """The position of the next frame that is followed by another of its kind or by the end."""
    ahead = peek(file, at, min(AHEAD, max(end - at, 0)))
    place = ahead.find(b"\xff")
    while place >= 0:
        frame = header(ahead[place : place + 4])
        if frame and kind in (None, frame.kind):
            after = at + place + frame.size
            follows = header(peek(file, after, 4)) if after + 4 <= end else None
            if after == end or follows and follows.kind == frame.kind:
                return at + place
        place = ahead.find(b"\xff", place + 1)
    return None


def _index(frame: bytes) -> tuple[int | None, bool]:
    """The number of frames that an index frame names (0: none), or None for a frame of audio."""
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big"), False
    first, mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    at = 4 + ((17 if mono else 32) if first else (9 if mono else 17))
    if frame[at : at + 4] not in (b"Xing", b"Info"):
        return None, False
    counted = frame[at + 7] & 1
    return int.from_bytes(frame[at + 8 : at + 12], "big") if counted else 0, bool(counted)
