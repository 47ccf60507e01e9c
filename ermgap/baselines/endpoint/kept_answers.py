"""The answers of one endpoint on disk, so that none is paid for twice.

One line of JSON an answer, appended and synced before the next question is asked; the key of a
line is (utterance_id, modality, prompt, audio, model), the third and fourth being hashes. A call
that failed leaves a line too, for the reader; it is asked again. Raw answers are kept, not what
they were read as: a better reader needs no new calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from ermgap.errors import UserError
from ermgap.records import append_line, claim, make_folder

KEY = ("utterance_id", "modality", "prompt", "audio", "model")


class Kept:
    """The file, held by this process alone while the `with` lasts.

    Raises UserError when another process holds it, and when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple, dict] = {}
        self._lock = Lock()

    def __enter__(self) -> Kept:
        try:
            make_folder(self.path.parent)
            self._file = open(self.path, "ab+")  # closed by __exit__
        except OSError as problem:
            raise self._unwritable(problem) from problem
        try:
            if not claim(self._file):
                raise UserError(
                    f"another process is adding answers to {self.path}; wait until it ends."
                )
            self._file.seek(0)
            self.rows = answered(self._file.read())
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *problem: object) -> None:
        with self._lock:
            self._file.close()  # gives the claim back

    def add(self, key: tuple, content: Mapping) -> None:
        """Keep one answer (`answer` in `content`) or failure: on disk when this returns."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        row = dict(zip(KEY, key, strict=True)) | dict(content) | {"at": at}
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                append_line(self.path, line)
            except OSError as problem:
                raise self._unwritable(problem) from problem
            if "answer" in row:
                self.rows[key] = row

    def _unwritable(self, problem: OSError) -> UserError:
        return UserError(
            f"the answers cannot be written to {self.path} ({problem.strerror or problem}); "
            "make room or choose another folder."
        )


def read(path: Path) -> dict[tuple, dict]:
    """The answers in a file by key, without claiming it; empty where there is none."""
    return answered(path.read_bytes()) if path.is_file() else {}


def answered(content: bytes) -> dict[tuple, dict]:
    """The answers in a file's bytes by key; lines that are no answer are passed over."""
    return {tuple(row[name] for name in KEY): row for row in _rows(content)}


def _rows(content: bytes) -> Iterator[dict]:
    for line in content.split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # blank, half of a line, or damaged
            continue
        if isinstance(row, dict) and all(isinstance(row.get(k), str) for k in (*KEY, "answer")):
            yield row
