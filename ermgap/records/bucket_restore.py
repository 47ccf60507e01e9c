"""A sweep that lies in a bucket (see `bucket_mirror`), brought to a folder of this machine.

    directory = restore("s3://bucket/sweeps/demo")            # results/demo

Neither torch nor Ray is imported here.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from ermgap.config import safe_yaml
from ermgap.errors import UserError
from ermgap.records import file_names
from ermgap.records.files import write_atomically
from ermgap.records.storage import Storage, is_uri

OWNER = "owner.json"
ROWS = "rows"  # folder of the segments SESSION-OFFSET.jsonl
FILES_AT_START = (file_names.SWEEP, file_names.TABLE)
FILES_AT_END = (file_names.DIAL, file_names.FLAT_TRIALS, file_names.FRONT, file_names.SUMMARY,
                file_names.SESSIONS, file_names.STOPPING, file_names.CONFIRMED,
                file_names.DONE)  # fmt: skip


def restore(uri: str, into: Path | str | None = None) -> Path:
    """Copy a sweep from its bucket to a folder (results/NAME), or update the copy; returns it.

    Predictions and adapters are fetched when they are read.

    Raises:
        UserError: there is no sweep at the URI, or the folder holds another one.
    """
    uri = uri.rstrip("/")
    if uri.rsplit("/", 1)[1] in (".", ".."):
        raise UserError(f"{uri} names no sweep; give the prefix of one.")
    into = Path(into) if into else Path("results") / uri.rsplit("/", 1)[1]
    store = Storage(into, uri)
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
    number = 0
    while store.names(f"earlier/{number}"):
        store.fetch_folder(f"earlier/{number}")
        number += 1
    if Storage(into / file_names.CONFIRM, f"{uri}-confirm").names(ROWS):
        restore(f"{uri}-confirm", into / file_names.CONFIRM)
    return into


def local_folder(place: Path | str) -> Path:
    """The folder of a sweep at a path or URI; from a URI the sweep is copied (`restore`)."""
    return restore(str(place)) if is_uri(place) else Path(place)


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
    try:
        owner = json.loads(_content(store, OWNER) or b"{}")
    except ValueError:
        return ""
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
