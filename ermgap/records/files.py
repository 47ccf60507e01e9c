"""Files that are whole or absent, locks, names of files, and plain values for JSON and YAML.

write_atomically(path, lambda temporary: temporary.write_text(text))
text = to_json(values, indent=1)
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)`, then rename it to `path`: readers see the old file or the new.

    The file and its name are on disk (fsync) when this returns.
    """
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Append a line, with its newline, to a file: whole and on disk (fsync) when this returns.

    Half a line that a crash left is ended first, so that it does not swallow this one. Of a line
    that the disk refuses (OSError) nothing stays in the file.
    """
    with open(path, "ab+", buffering=0) as file:  # a buffer would be written again at the close
        before = file.tell()
        if before:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            remaining = memoryview(line)
            while remaining:
                remaining = remaining[file.write(remaining) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)  # a full disk took half of it
            raise
    if not before:
        _sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents; their names are on disk (fsync) afterwards."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk: the fsync of a new file does not do that.

    Nothing where a file system has no fsync of folders, such as some network file systems.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as problem:
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def claim(file: int | IO, *, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed or this process dies; False if another has it.

    A file system without locks is no error: nobody else is known to have it. `wait` waits for it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def escape_undecodable(text: str) -> str:
    """`text` in which the bytes of a file's name that are not UTF-8 are written as `\\xe4`.

    Python keeps such bytes as lone surrogates, which no table and no file in UTF-8 can hold.
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that is no byte's
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def path_bytes(path: str | os.PathLike) -> bytes:
    """The file's name in the file system, in any locale; undoes `escape_undecodable`."""
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:  # a manifest in UTF-8 read under LC_ALL=C
        name = escape_undecodable(os.fspath(path)).encode()
    if b"\\x" not in name or os.path.lexists(name):
        return name
    return re.sub(rb"\\x([89a-f][0-9a-f])", lambda match: bytes([int(match[1], 16)]), name)


def plain(value, *, finite: bool = False):
    """Nested values as dicts with string keys, lists and Python's own numbers, for JSON and YAML.

    With `finite`, NaN and infinities become None, as strict JSON needs.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, finite=finite) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, finite=finite) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if finite and isinstance(value, float) and not math.isfinite(value) else value


def json_lines(content: bytes) -> Iterator:
    """The JSON value of each line that is not blank; None for one that is no JSON."""
    for line in filter(bytes.strip, content.split(b"\n")):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield None


def to_json(values, **options) -> str:
    """Strict JSON of nested values; options as of `json.dumps`. NaN and infinities are null."""
    return json.dumps(plain(values, finite=True), allow_nan=False, **options)
