"""A sweep's rows in the bucket of its storage, so that losing the driver's disk loses no trial.

    with Mirror(records) as mirror: ...                       # while the sweep runs
    mark_done(records)                                        # at its end

The bucket's prefix then holds `sweep.yaml`, `table.parquet`, `owner.json` (the session that writes)
and `rows/SESSION-OFFSET.jsonl`: segments of trials.jsonl from byte OFFSET on, never changed after
their upload. A session's number is one above all numbers in the bucket, and its first segment is
the whole file, so that the segments of one session are read, the owner's; those of older sessions
are removed. Two drivers cannot mix their rows: one that reads another's name in owner.json stops.
Neither torch nor Ray is imported here.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ermgap.errors import UserError
from ermgap.records import file_names
from ermgap.records.bucket_restore import (
    FILES_AT_END,
    FILES_AT_START,
    OWNER,
    ROWS,
    number_of,
    owner_of,
    segments,
)

if TYPE_CHECKING:
    from ermgap.records.sweep_records import Records

EVERY_S = 5.0  # between two segments: rows of this time are lost with a disk


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
        upload(self.records, [*FILES_AT_START, *_earlier(self.records)])
        store = self.records.store
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

        Raises:
            UserError: another driver has taken the sweep over, or the storage failed for long.
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

    A session that was killed between its last row and its end has left both undone.

    Raises:
        UserError: as for `Mirror.error`.
    """
    with Mirror(records) as mirror:
        pass
    if mirror.error:
        raise mirror.error
    for trial_id in records.with_checkpoints():
        records.forget_checkpoints(trial_id)


def mark_done(records: Records) -> None:
    """Mark a sweep as done in its folder and, with the files of its end, in its bucket.

    Raises:
        StorageError: as for `upload`.
    """
    records.mark_done()
    upload(records)


def upload(records: Records, names: Iterable[str] = FILES_AT_END) -> None:
    """Copy files of a sweep's folder, those that exist, to its bucket, if it has one.

    Raises:
        StorageError: the storage failed for as long as it is waited for.
    """
    if records.in_bucket:
        for name in names:
            if (records.directory / name).exists():
                records.store.upload(name)


def _earlier(records: Records) -> list[str]:
    """Names of the files of the sweeps that this one was warm-started with."""
    files = sorted((records.directory / file_names.EARLIER).glob("*/*"))
    return [str(path.relative_to(records.directory)) for path in files]
