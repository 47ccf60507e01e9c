"""A sweep's rows in the bucket of its storage, so that losing the driver's disk loses no trial.

    with Mirror(records) as mirror: ...                       # while the sweep runs
    seal(records)                                             # when it is done

The bucket's prefix then holds `sweep.yaml`, `table.parquet`, `owner.json` (the session that writes)
and `rows/SESSION-OFFSET.jsonl`: segments of trials.jsonl from byte OFFSET on, closed when they are
put. A session is numbered one above all that the bucket knows of, and begins with a segment of the
whole file, so that one session alone is read: the owner's. Older ones are then removed. Two drivers
cannot mix their rows: the one that finds another's name in owner.json stops. Neither torch nor Ray
is imported here.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ermgap.errors import UserError
from ermgap.records.bucket_restore import FIRST, LAST, OWNER, ROWS, number_of, owner_of, segments
from ermgap.records.storage import Storage

if TYPE_CHECKING:
    from ermgap.records.sweep_records import Records

EVERY_S = 5.0  # between two segments: what a lost disk may cost


class Mirror:
    """Puts the rows of one sweep into its bucket, in a thread, every few seconds.

    Args:
        records: of the sweep; nothing happens where its storage is no bucket.
        every: seconds.

    `error` is what ended it: a StorageError, or a UserError where another driver took over.
    """

    def __init__(self, records: Records, *, every: float = EVERY_S) -> None:
        self.records, self.every, self.offset = records, every, 0
        self.session = ""  # NUMBER-RANDOM, once it has begun
        self.error: UserError | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def start(self) -> Mirror:
        """Begin, if there is a bucket."""
        if self.records.in_bucket:
            self._thread.start()
        return self

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Put what is left, as long as the storage's patience allows."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def begin(self) -> None:
        """Take the sweep over: its description, and all rows so far as the first segment."""
        put(self.records, [*FIRST, *_earlier(self.records)])
        store = self.records.store
        store.remove("DONE")  # of a sweep that is extended
        # A count, not a time: the clock of a machine that replaces another one may lag.
        number = 1 + max(map(number_of, [owner_of(store), *segments(store)]), default=0)
        self.session = f"{number:020d}-{uuid.uuid4().hex[:8]}"
        owner = {"session": self.session, "time": time.time()}
        _put_bytes(store, OWNER, json.dumps(owner).encode())
        self.step()
        for session, names in segments(store).items():
            if number_of(session) < number and self.offset:
                for name in names.values():
                    store.remove(f"{ROWS}/{name}")

    def step(self) -> None:
        """Put the whole lines that are new as a segment.

        Raises:
            UserError: another driver has taken the sweep over, or the storage failed for long.
        """
        path = self.records.directory / "trials.jsonl"
        if not path.exists() or path.stat().st_size <= self.offset:
            return
        with open(path, "rb") as file:
            file.seek(self.offset)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        if not new:
            return
        self._require_owner()
        _put_bytes(self.records.store, f"{ROWS}/{self.session}-{self.offset:012d}.jsonl", new)
        self.offset += len(new)

    def _require_owner(self) -> None:
        store = self.records.store
        if owner_of(store) != self.session:
            raise UserError(
                f"another driver has taken over the sweep in {store.uri}; this one stops, and its "
                f"rows since then are in {self.records.directory} alone."
            )

    def _run(self) -> None:
        try:
            self.begin()
            while not self._ending.wait(self.every):
                self.step()
            self.step()
        except UserError as problem:
            self.error = problem


def catch_up(records: Records) -> None:
    """Do what a session left undone that was killed between its last row and its end.

    Its last rows are put into the bucket; the checkpoints, which no trial needs, are removed.

    Raises:
        UserError: as for `Mirror.error`.
    """
    with Mirror(records) as mirror:
        pass
    if mirror.error:
        raise mirror.error
    for trial_id in records.with_checkpoints():
        records.forget_checkpoints(trial_id)


def seal(records: Records) -> None:
    """Mark a sweep as done, here and, with what its end wrote, in its bucket.

    Raises:
        StorageError: as for `put`.
    """
    records.mark_done()
    put(records)


def put(records: Records, names: Iterable[str] = LAST) -> None:
    """Copy files of a sweep's folder into its bucket; nothing where there is none.

    Raises:
        StorageError: the storage failed for as long as is waited for it.
    """
    if records.in_bucket:
        for name in names:
            if (records.directory / name).exists():
                records.store.upload(name)


def _earlier(records: Records) -> list[str]:
    """Names of the rows of sweeps that this one learns from."""
    files = sorted((records.directory / "earlier").glob("*/*"))
    return [str(path.relative_to(records.directory)) for path in files]


def _put_bytes(store: Storage, name: str, content: bytes) -> None:
    """One object; no copy of it stays in the folder."""
    store.write(name, lambda path: path.write_bytes(content))
