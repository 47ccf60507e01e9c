"""Opens audio files for their samples, and checks what their headers say of the length.

    with open_audio("clip.mp3") as file:      # Sound: a soundfile.SoundFile, read forward
        samples = file.read(16000)

Lengths come from the content: the frames of an MP3, the bytes of a WAV whose recorder never wrote
its sizes, the decoder for FLAC. A file that lacks a part that its header or its last page promises
is truncated; where nothing says how long a file should be, it is of unknown length.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import soundfile

from ermgap.corpora import mpeg
from ermgap.corpora.audio_files import unsupported_content, unsupported_name
from ermgap.corpora.mpeg import peek
from ermgap.records.files import path_bytes

TRUNCATED = "truncated or damaged"
CHAINED = "a chain of Ogg streams, of which only one could be read; convert it with ffmpeg"
UNKNOWN = "of unknown length"
STREAMED = 0x7FFFF000  # a size from here on is a placeholder: written to a pipe, length not known
ROUNDED = 1024  # bytes by which a size in a header may exceed the file
FURTHEST = 1 << 20  # bytes before the data of a WAV whose sizes are looked at
TAGS = (b"APETAGEX", b"LYRICS", b"TAG", b"ID3", b"\0")  # after the last frame of an MP3
TAIL_S = 0.05  # what may follow the data of a WAV without being asked what it is
LONGEST_BLOCK = 1 << 20  # samples that are decoded at a time
_ENDLESS = 1 << 62  # libsndfile's count of frames where it knows none


class UnusableClip(Exception):
    """A clip that is excluded; the message is the recorded reason."""


@dataclass(frozen=True)
class ReadPlan:
    """How to read a file: `head`, then its bytes from `start` to `end`; as it is if `end` is 0.

    `seekable` is whether the decoder may seek in that; `endless` hides its end, which makes the
    decoder go on to the last frame. `promised` samples a channel are there unless it is damaged.
    """

    head: bytes = b""
    start: int = 0
    end: int = 0
    endless: bool = False
    seekable: bool = True
    promised: int | None = None


class Sound(soundfile.SoundFile):
    """An audio file read forward in blocks; `promised` is None where nothing names a length."""

    promised: int | None = None
    linear = False

    def seekable(self) -> bool:
        """False: the base class would seek after every read, which harms MP3 and FLAC."""
        return False

    def skip(self, frames: int) -> None:
        """Go to a sample: the same ones follow as after decoding from the start.

        MP3 and Opus need what came before: a frame of MP3 borrows bits from frames up to half a
        second before it. Hence a second is decoded and discarded.
        """
        near = 0 if self.linear else min(max(frames - self.samplerate, 0), self.frames)
        if near:
            self.seek(near)
        remaining, block = frames - near, self.block
        while remaining > 0 and (n := len(self.read(min(remaining, block), dtype="float32"))):
            remaining -= n

    @property
    def block(self) -> int:
        """Samples a channel to decode at a time: fewer of many channels, for equal memory."""
        return max(1, LONGEST_BLOCK // self.channels)


class _PlannedBytes(io.RawIOBase):
    """The bytes that a plan names, as a file."""

    def __init__(self, file: io.BufferedIOBase, plan: ReadPlan) -> None:
        self._file = file
        self._plan = plan
        self._at = 0
        self._size = len(plan.head) + plan.end - plan.start
        # From this mpg123 estimates the length: 64 times the true size is more than any mixture of
        # bitrates gives (320 to 8 kbit/s). It reads the last 128 bytes.
        self._apparent = self._size * 64 + 128 if plan.endless else self._size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._apparent)[whence]
        return self._at

    def readinto(self, buffer) -> int:
        content = self._bytes(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def _bytes(self, count: int) -> bytes:
        if self._plan.endless and self._at >= self._apparent - 128:
            return bytes(min(count, self._apparent - self._at))
        head = self._plan.head[self._at : self._at + count]
        more = min(count, self._size - self._at) - len(head)
        if more <= 0:
            return head
        start = self._plan.start + max(self._at - len(self._plan.head), 0)
        return head + peek(self._file, start, more)


@contextmanager
def open_audio(path: str | Path, *, start_s: float = 0.0) -> Iterator[Sound]:
    """The file, from `start_s` on, closed in the end. Raises UnusableClip with the reason.

    Whatever a decoder raises is such a reason, also in the body of the `with`: unreadable where the
    file cannot be opened, damaged where its samples cannot be decoded.
    """
    name, decoding = path_bytes(path), False
    try:
        with ExitStack() as stack:
            status = os.stat(name)
            plan = _plan(name, status.st_size, status.st_mtime_ns)
            if start_s and not plan.seekable and plan.promised:
                plan = ReadPlan()
            source = name
            if plan.end:
                source = _PlannedBytes(stack.enter_context(open(name, "rb")), plan)
            file = stack.enter_context(Sound(source))
            _check(file, plan, status.st_size)
            decoding = True
            file.skip(round(start_s * file.samplerate))
            yield file
    except UnusableClip:
        raise
    except Exception as problem:  # libsndfile's own, TypeError of a .raw, a bad disk's OSError
        raise UnusableClip(
            TRUNCATED if decoding else unsupported_name(path) or "unreadable"
        ) from problem


def _check(file: Sound, plan: ReadPlan, size: int) -> None:
    """Raise UnusableClip for a file that is shorter than its header says; set `promised`."""
    for stated, actual in re.findall(r":\s*(\d+) \(should be (\d+)\)", file.extra_info):
        if int(actual) + ROUNDED < int(stated) < STREAMED:
            raise UnusableClip(TRUNCATED)
    known = file.frames if file.frames < _ENDLESS and not plan.endless else None
    if known == 0 and size > 4096 and file.format not in ("WAV", "WAVEX"):
        raise UnusableClip(f"{UNKNOWN} (its header counts no samples)")
    if not plan.end and known is not None and file.format == "MP3" and not plan.promised:
        raise UnusableClip(UNKNOWN)
    file.promised = plan.promised or known
    file.linear = not plan.seekable


# Plans by format ----------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _plan(name: bytes, size: int, changed: int) -> ReadPlan:  # size and time: a version of the file
    with open(name, "rb") as file:
        mark = file.read(64)
        if reason := unsupported_content(mark):
            raise UnusableClip(reason)
        if mark[:4] == b"RIFF" and mark[8:12] == b"WAVE":
            return _wav(file, size)
        if mark[:4] == b"fLaC":
            return _flac(mark, size)
        if mark[:4] == b"OggS":
            return _ogg(file, size)
        if mark[:3] == b"ID3" or mpeg.header(mark):
            return _mpeg(file, 0, size)
    return ReadPlan()


def _wav(file: io.BufferedIOBase, size: int) -> ReadPlan:
    """A WAV as it is, but with sizes where its recorder wrote 0."""
    at, bytes_a_second, tag = 12, 0, 0
    while True:
        mark = peek(file, at, 8)
        if len(mark) < 8 or at > FURTHEST:
            return ReadPlan()
        length = int.from_bytes(mark[4:], "little")
        if mark[:4] == b"data":
            break
        if mark[:4] == b"fmt ":
            shape = peek(file, at + 8, 16)
            tag = int.from_bytes(shape[:2], "little")
            bytes_a_second = int.from_bytes(shape[8:12], "little")
        at += 8 + length + length % 2
    data = at + 8
    head = bytearray(peek(file, 0, data))
    whole = int.from_bytes(head[4:8], "little") + 8
    if length == 0 and data < size and abs(whole - size) > 1:
        head[4:8] = min(size - 8, 0xFFFFFFFF).to_bytes(4, "little")
        head[-4:] = min(size - data, 0xFFFFFFFF).to_bytes(4, "little")
        return ReadPlan(bytes(head), start=data, end=size)
    if tag in (0x50, 0x55):
        return _mpeg(file, data, min(data + length, size), inside=True)
    if size - data - length > TAIL_S * bytes_a_second:
        _require_known_tail(file, data + length)
    return ReadPlan()


def _require_known_tail(file: io.BufferedIOBase, end: int) -> None:
    """Raise UnusableClip unless a chunk, a tag or zeros follow the data of a WAV."""
    tail = peek(file, end, 4096)
    marks = (tail[:4], tail[1:5])  # odd data may be padded
    known = tail[:3] in (b"ID3", b"TAG") or any(all(32 <= c < 127 for c in m) for m in marks)
    if tail.strip(b"\0") and not known:
        raise UnusableClip(f"{UNKNOWN} (its sound goes on after the end that its header names)")


def _flac(mark: bytes, size: int) -> ReadPlan:
    """A FLAC without the length in its header, so that the decoder goes to the end."""
    promised = int.from_bytes(mark[21:26], "big") & 0xFFFFFFFFF or None
    head = mark[:21] + bytes([mark[21] & 0xF0]) + bytes(4)
    return ReadPlan(head, start=26, end=size, seekable=False, promised=promised)


def _ogg(file: io.BufferedIOBase, size: int) -> ReadPlan:
    """An Ogg as it is, if each of its streams has an end and none begins after another."""
    at, last, begun = 0, {}, True
    while at + 27 <= size:
        page = peek(file, at, 27)
        if page[:4] != b"OggS":
            ahead = peek(file, at, 1 << 16)
            next_page = ahead.find(b"OggS", 1)
            at += next_page if next_page > 0 else max(len(ahead) - 3, 1)
            continue
        length = 27 + page[26] + sum(peek(file, at + 27, page[26]))
        if at + length > size:
            break
        first = bool(page[5] & 2)
        if first and not begun:
            raise UnusableClip(CHAINED)
        begun &= first
        last[page[14:18]] = page[5]
        at += length
    if not all(flags & 4 for flags in last.values()):
        raise UnusableClip(TRUNCATED)
    return ReadPlan()


def _mpeg(file: io.BufferedIOBase, at: int, end: int, *, inside: bool = False) -> ReadPlan:
    """An MP3 as it is if its index is right; else its frames alone, to be decoded to the last."""
    stream = mpeg.count_frames(file, at, end)
    if stream is None or not stream.frames:
        return ReadPlan()
    declared = stream.declared
    lost = stream.end + mpeg.AHEAD < end and not peek(file, stream.end, 8).startswith(TAGS)
    if lost or declared is not None and stream.frames < declared - 2:
        raise UnusableClip(TRUNCATED)
    if stream.xing and declared and stream.frames <= declared + 2 and not inside:
        return ReadPlan(promised=max(declared - 2, 1) * stream.samples)
    promised = max(stream.frames - 2, 1) * stream.samples  # the first may lack borrowed bits
    return ReadPlan(b"", stream.start, stream.end, endless=True, promised=promised)
