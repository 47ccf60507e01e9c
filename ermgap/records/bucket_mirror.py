"""A sweep's rows in the bucket of its storage, so that losing the driver's disk loses no trial.

    with Mirror(records) as mirror: ...                       # while the sweep runs
    mark_done(records)                                        # at its end
    directory = restore("s3://bucket/sweeps/demo")            # elsewhere: results/demo

The bucket's prefix then holds `sweep.yaml`, `table.parquet`, `owner.json` (the session that writes)
and `rows/SESSION-OFFSET.jsonl`: segments of trials.jsonl from byte OFFSET on, never changed after
their upload. A session's number is one above all numbers in the bucket, and its first segment is
the whole file, so that the segments of one session are read, the owner's; those of older sessions
are removed. Two drivers cannot mix their rows: one that reads another's name in owner.json stops.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ermgap.config import safe_yaml
from ermgap.errors import UserError
from ermgap.records import file_names
from ermgap.records.files import json_lines, write_atomically
from ermgap.records.storage import Storage

if TYPE_CHECKING:
    from ermgap.records.sweep_records import Records

EVERY_S = 5.0  # between two segments: rows of this time are lost with a disk
OWNER = "owner.json"
ROWS = "rows"  # folder of the segments SESSION-OFFSET.jsonl
FILES_AT_START = (file_names.SWEEP, file_names.TABLE)
FILES_AT_END = (file_names.DIAL, file_names.FLAT_TRIALS, file_names.FRONT, file_names.SUMMARY,
                file_names.SESSIONS, file_names.STOPPING, file_names.CONFIRMED,
                file_names.CROSS_FITTED, file_names.DONE)  # fmt: skip


class Mirror:
    """Uploads the rows of one sweep to its bucket, in a thread, every few seconds.

    Args:
        records: of the sweep; nothing happens where its storage is no bucket.
        every: seconds between two uploads.

    Attributes:
        error: what ended it: a StorageError, or a UserError where another driver took over.
    """

    def __init__(self, records: Records, *, every: float = EVERY_S) -> None:
        self.records, self.every, self.offset = records, every, 0
        self.session = ""  # NUMBER-RANDOM, once it has begun
        self.error: UserError | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def start(self) -> Mirror:
        """Start the thread, if there is a bucket."""
        if self.records.in_bucket:
            self._thread.start()
        return self

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Upload the last rows and end the thread; tried as long as a storage is waited for."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def take_over(self) -> None:
        """Become the owner of the sweep in the bucket; upload its description and rows so far."""
        store, folder = self.records.store, self.records.directory
        earlier = sorted((folder / file_names.EARLIER).glob("*/*"))
        names = [str(path.relative_to(folder)) for path in earlier]
        upload(self.records, [*FILES_AT_START, *names])
        store.remove(file_names.DONE)  # the sweep may have got more trials
        # A count, not a time: the clock of a machine that replaces another one may lag.
        number = 1 + max(map(number_of, [owner_of(store), *segments(store)]), default=0)
        self.session = f"{number:020d}-{uuid.uuid4().hex[:8]}"
        owner = {"session": self.session, "time": time.time()}
        store.write(OWNER, lambda path: path.write_text(json.dumps(owner)))
        self.upload_rows()
        for session, names in segments(store).items():
            if number_of(session) < number and self.offset:
                for name in names.values():
                    store.remove(f"{ROWS}/{name}")

    def upload_rows(self) -> None:
        """Upload the whole lines that are new as a segment.

        Raises UserError where another driver has taken the sweep over, or the storage failed.
        """
        path = self.records.directory / file_names.TRIALS
        if not path.exists() or path.stat().st_size <= self.offset:
            return
        with open(path, "rb") as file:
            file.seek(self.offset)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        if not new:
            return
        self._require_owner()
        segment = f"{ROWS}/{self.session}-{self.offset:012d}.jsonl"
        self.records.store.write(segment, lambda path: path.write_bytes(new))
        self.offset += len(new)

    def _require_owner(self) -> None:
        store = self.records.store
        if owner_of(store) != self.session:
            raise UserError(
                f"another driver has taken over the sweep in {store.uri}; this one stops. Its rows "
                f"since then are in {self.records.directory} alone."
            )

    def _run(self) -> None:
        try:
            self.take_over()
            while not self._ending.wait(self.every):
                self.upload_rows()
            self.upload_rows()
        except UserError as problem:
            self.error = problem


def catch_up(records: Records) -> None:
    """Upload the last rows and remove the checkpoints of a sweep of which every trial has ended.

    A session that was killed between its last row and its end has left both undone. Raises the
    UserError of `Mirror.error`.
    """
    with Mirror(records) as mirror:
        pass
    if mirror.error:
        raise mirror.error
    for trial_id in records.with_checkpoints():
        records.forget_checkpoints(trial_id)


def mark_done(records: Records) -> None:
    """Mark a sweep as done in its folder and, with the files of its end, in its bucket."""
    records.mark_done()
    upload(records)


def upload(records: Records, names: Iterable[str] = FILES_AT_END) -> None:
    """Copy files of a sweep's folder, those that exist, to its bucket, if it has one.

    Raises StorageError when the storage failed for as long as it is waited for.
    """
    if records.in_bucket:
        for name in names:
            if (records.directory / name).exists():
                records.store.upload(name)


def restore(uri: str, into: Path | str | None = None) -> Path:
    """Copy a sweep from its bucket to a folder (results/NAME), or update the copy; returns it.

    Predictions and adapters are fetched when they are read. Raises UserError where there is no
    sweep at the URI, or the folder holds another one.
    """
    uri = uri.rstrip("/")
    if uri.rsplit("/", 1)[1] in (".", ".."):
        raise UserError(f"{uri} names no sweep; give the prefix of one.")
    into = Path(into) if into else Path("results") / uri.rsplit("/", 1)[1]
    store = Storage(uri, folder=into)
    described = into / file_names.SWEEP
    if described.exists():
        try:
            sweep = safe_yaml.read(described.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            sweep = None
        if not isinstance(sweep, dict) or sweep.get("storage") != uri:
            raise UserError(
                f"{into} holds another sweep than {uri}; move it away, or work in another folder."
            )
    elif not store.fetch(file_names.SWEEP).exists():
        raise UserError(f"{uri} holds no sweep (no sweep.yaml); name the prefix of one.")
    rows, path = _rows(store), into / file_names.TRIALS
    local = path.read_bytes() if path.exists() else b""
    if rows and not local.startswith(rows):
        if not rows.startswith(local[: local.rfind(b"\n") + 1]):
            _keep_aside(path, uri)
        write_atomically(path, lambda temporary: temporary.write_bytes(rows))
        store.fetch(file_names.SWEEP)  # that of these rows
    for name in (file_names.TABLE, *FILES_AT_END):
        store.fetch(name)
    for name in store.names(file_names.EARLIER, recursive=True):
        store.fetch(f"{file_names.EARLIER}/{name}")
    if Storage(f"{uri}-confirm", folder=into / file_names.CONFIRM).names(ROWS):
        restore(f"{uri}-confirm", into / file_names.CONFIRM)
    fold = 0
    while Storage(place := f"{uri}-confirm-fold-{fold}", folder=into).names(ROWS):
        restore(place, into / file_names.CONFIRM_FOLDS / f"fold-{fold}")
        fold += 1
    return into


def segments(store: Storage) -> dict[str, dict[int, str]]:
    """The names of the segments of each session, by the byte at which each begins."""
    sessions: dict[str, dict[int, str]] = {}
    for name in store.names(ROWS):
        session, _, offset = name.removesuffix(".jsonl").rpartition("-")
        if offset.isdigit():
            sessions.setdefault(session, {})[int(offset)] = name
    return sessions


def number_of(session: str) -> int:
    """The number at the start of a session's name; 0 where there is none."""
    number = session.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def owner_of(store: Storage) -> str:
    """The name of the session that writes to a sweep's bucket, or wrote last; "" without one."""
    owner = next(json_lines(_content(store, OWNER)), None)
    return str(owner.get("session", "")) if isinstance(owner, dict) else ""


def _rows(store: Storage) -> bytes:
    """The rows of the owner's session, up to the first missing segment.

    An owner that was lost before its first segment has none; then the highest number counts.
    """
    sessions, owner = segments(store), owner_of(store)
    for session in sorted(sessions, key=lambda s: (s == owner, number_of(s)), reverse=True):
        rows = b""
        for offset, name in sorted(sessions[session].items()):
            if offset == len(rows):
                rows += _content(store, f"{ROWS}/{name}")
        if rows:
            return rows
    return b""


def _keep_aside(path: Path, uri: str) -> None:
    """Rename a file of rows that the bucket's owner never had, and print so.

    Another machine went on from an earlier row; the two are not mixed.
    """
    number = 1
    while (aside := path.with_name(f"trials-{number}.jsonl")).exists():
        number += 1
    path.rename(aside)
    print(
        f"the rows in {path} differ from those in {uri}; they are kept as {aside.name}, and the "
        "bucket's are used."
    )


def _content(store: Storage, name: str) -> bytes:
    """The content of an object, empty where there is none; no copy of it stays in the folder."""
    path = store.fetch(name)
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    return content
