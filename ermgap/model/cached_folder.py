"""Folders in the user's cache that are built once and verified at each use.

    folder = build_once("small-2x4s-1f0e...", build=write_files)

Of two processes, one builds and the other waits on a file lock. Files are written into a temporary
folder that takes the final name in one rename; its marker, written last, holds the sha256 of every
file. Each call compares sizes and modification times with the marker (microseconds), and hashes the
bytes only where these differ. A damaged folder is built again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from ermgap import cache_dir
from ermgap.errors import as_user_error
from ermgap.model.backbones.small_from_wheels import sha256
from ermgap.records import claim

MARKER = "files.json"
OLD_MARKER = "ermgap.json"  # its earlier name: such folders are still used


def build_once(key: str, *, build: Callable[[Path], None]) -> Path:
    """The folder `key` of the cache, built by `build(empty_folder)` unless it is there and intact.

    Raises UserError when the cache cannot be written.
    """
    root = cache_dir() / "backbones"
    folder = root / key
    if intact(folder):
        return folder
    with exclusive(root / f"{key}.lock"):
        if intact(folder):
            return folder
        if folder.exists():
            warnings.warn(f"the backbone in {folder} is damaged; building it again", stacklevel=2)
        _build(folder, build=build)
    return folder


def intact(folder: Path) -> bool:
    """Whether each file in the marker has its size and modification time, or else its sha256."""
    try:
        marker = folder / (MARKER if (folder / MARKER).exists() else OLD_MARKER)
        files = json.loads(marker.read_text(encoding="utf-8"))["files"]
        return all(_same(folder / name, entry) for name, entry in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` against the other processes of this machine; yields True.

    The kernel releases the lock of a process that dies. Without `wait`, yields False while another
    process holds it. Raises UserError when the file cannot be made.
    """
    fault = f"the cache folder {path.parent} cannot be written"
    with as_user_error(fault, "set ERMGAP_CACHE to a folder of yours"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    with lock:
        yield claim(lock, wait=wait)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Disables transformers' progress bars, which would be mixed with ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _same(path: Path, entry: dict) -> bool:
    stat = path.stat()
    return stat.st_size == entry["size"] and (
        stat.st_mtime_ns == entry["mtime_ns"] or sha256(path) == entry["sha256"]
    )


def _build(folder: Path, *, build: Callable[[Path], None]) -> None:
    for abandoned in folder.parent.glob(f".{folder.name}.*"):  # in use by nobody: we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    fault = f"the backbone cannot be written to {folder.parent}"
    try:
        with as_user_error(fault, "make room there or set ERMGAP_CACHE to another folder"):
            with quiet():
                build(fresh)
            _mark(fresh)
            if folder.exists():
                os.replace(folder, fresh.with_suffix(".old"))
            os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(fresh.with_suffix(".old"), ignore_errors=True)


def _mark(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        size, time = path.stat().st_size, path.stat().st_mtime_ns
        files[path.name] = {"size": size, "mtime_ns": time, "sha256": sha256(path)}
    (folder / MARKER).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
