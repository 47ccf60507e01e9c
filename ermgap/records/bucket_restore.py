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
from ermgap.records.files import write_atomically
from ermgap.records.storage import Storage, is_uri

OWNER = "owner.json"
ROWS = "rows"  # folder of the segments SESSION-OFFSET.jsonl
FIRST = ("sweep.yaml", "table.parquet")
LAST = ("trials.parquet", "front.parquet", "summary.json", "sessions.jsonl", "stopping.json",
        "confirmed.parquet", "DONE")  # fmt: skip


def restore(uri: str, into: Path | str | None = None) -> Path:
    """Bring a sweep from its bucket into a folder (results/NAME), or bring that up to date.

    Predictions and adapters are fetched when they are read.

    Raises:
        UserError: there is no sweep at the URI, or the folder holds another one.
    """
    uri = uri.rstrip("/")
    if uri.rsplit("/", 1)[1] in (".", ".."):
        raise UserError(f"{uri} names no sweep; give the prefix of one.")
    into = Path(into) if into else Path("results") / uri.rsplit("/", 1)[1]
    store = Storage(into, uri)
    described = into / "sweep.yaml"
    if described.exists():
        try:
            kept = safe_yaml.read(described.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            kept = None
        if not isinstance(kept, dict) or kept.get("storage") != uri:
            raise UserError(
                f"{into} holds another sweep than {uri}; move it away, or work in another folder."
            )
    elif not store.fetch("sweep.yaml").exists():
        raise UserError(f"{uri} holds no sweep (no sweep.yaml); name the prefix of one.")
    rows, path = _rows(store), into / "trials.jsonl"
    here = path.read_bytes() if path.exists() else b""
    if rows and not here.startswith(rows):
        if not rows.startswith(here[: here.rfind(b"\n") + 1]):
            _keep_aside(path, uri)
        write_atomically(path, lambda temporary: temporary.write_bytes(rows))
        store.fetch("sweep.yaml")  # as it was when these rows were written
    for name in ("table.parquet", *LAST):
        store.fetch(name)
    _bring_earlier(store)
    if Storage(into / "confirm", f"{uri}-confirm").names(ROWS):
        restore(f"{uri}-confirm", into / "confirm")
    return into


def directory_of(place: Path | str) -> Path:
    """A sweep's folder: the place itself, or where `restore` brings the sweep at a URI."""
    return restore(str(place)) if is_uri(place) else Path(place)


def segments(store: Storage) -> dict[str, dict[int, str]]:
    """By session, the names of its segments by the byte at which each begins."""
    sessions: dict[str, dict[int, str]] = {}
    for name in store.names(ROWS):
        session, _, offset = name.removesuffix(".jsonl").rpartition("-")
        if offset.isdigit():
            sessions.setdefault(session, {})[int(offset)] = name
    return sessions


def number_of(session: str) -> int:
    """The number with which a session's name begins; 0 where there is none."""
    number = session.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def owner_of(store: Storage) -> str:
    """The session that writes to a sweep's bucket, or wrote last; "" where none is named."""
    try:
        owner = json.loads(object_of(store, OWNER) or b"{}")
    except ValueError:
        return ""
    return str(owner.get("session", "")) if isinstance(owner, dict) else ""


def _rows(store: Storage) -> bytes:
    """The rows of the owner's session, as far as they hang together.

    An owner that was lost before its first segment has none; then the highest number counts.
    """
    sessions, owner = segments(store), owner_of(store)
    for session in sorted(sessions, key=lambda one: (one == owner, number_of(one)), reverse=True):
        found = b""
        for offset, name in sorted(sessions[session].items()):
            if offset == len(found):
                found += object_of(store, f"{ROWS}/{name}") or b""
        if found:
            return found
    return b""


def _keep_aside(path: Path, uri: str) -> None:
    """Rename rows that the bucket's owner never had: another machine went on from an earlier one.

    They are printed and kept, not mixed with what the owner wrote.
    """
    number = 1
    while (aside := path.with_name(f"trials-{number}.jsonl")).exists():
        number += 1
    path.rename(aside)
    print(
        f"the rows in {path} are not those that {uri} went on with; they are kept as {aside.name}, "
        "and the bucket's are used."
    )


def _bring_earlier(store: Storage) -> None:
    number = 0
    while names := store.names(f"earlier/{number}"):
        for name in names:
            store.fetch(f"earlier/{number}/{name}")
        number += 1


def object_of(store: Storage, name: str) -> bytes | None:
    """What an object holds, or None; no copy of it stays in the folder."""
    path = store.fetch(name)
    if not path.exists():
        return None
    content = path.read_bytes()
    path.unlink()
    return content
