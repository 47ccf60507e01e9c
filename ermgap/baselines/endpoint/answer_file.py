"""The answers of one endpoint in a file, so that none is paid for twice.

One line of JSON for each answer, appended and synced before the next question is asked; the key of
a line is (utterance_id, modality, prompt, audio, model), the third and fourth being hashes. A
request that failed leaves a line too, for a human reader; it is asked again. The raw answers are
kept, not the labels read from them: a better parser needs no new requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from ermgap.errors import UserError
from ermgap.records import append_line, claim, make_folder
from ermgap.records.files import json_lines

KEY = ("utterance_id", "modality", "prompt", "audio", "model")


class AnswerFile:
    """The file, locked for this process while the `with` lasts.

    Raises UserError when another process has locked it, and when it cannot be written.

    Attributes:
        rows: the answers by key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple, dict] = {}
        self._lock = Lock()

    def __enter__(self) -> AnswerFile:
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
            self.rows = parse(self._file.read())
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *problem: object) -> None:
        with self._lock:
            self._file.close()  # releases the lock

    def add(self, key: tuple, content: Mapping) -> None:
        """Append an answer (`answer` in `content`) or a failure: on disk when this returns."""
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
    """The answers in a file by key, without locking it; empty where there is none."""
    return parse(path.read_bytes()) if path.is_file() else {}


def parse(content: bytes) -> dict[tuple, dict]:
    """The answers in a file's bytes by key; lines that are no answer are skipped."""
    answers = [row for row in json_lines(content) if isinstance(row, dict)]
    return {
        tuple(row[name] for name in KEY): row
        for row in answers
        if all(isinstance(row.get(name), str) for name in (*KEY, "answer"))
    }
