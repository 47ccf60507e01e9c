"""Folders that are built once into the user's cache and can be trusted afterwards.

    folder = build_once("small-2x4s-1f0e...", build=write_files)

Two processes that ask at once build once: the second waits on a file lock. Files are written into a
temporary folder that takes the final name in one rename; its marker, written last, holds the sha256
of every file. Each call checks sizes and modification times against the marker (microseconds); only
where these differ, or with `verify=True`, are the bytes hashed. A damaged folder is built anew.
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
from ermgap.errors import UserError
from ermgap.model.backbones.small_from_wheels import sha256
from ermgap.records import claim

MARKER = "files.json"
OLD_MARKER = "ermgap.json"  # its earlier name: such folders are still used


def build_once(key: str, *, build: Callable[[Path], None], verify: bool = False) -> Path:
    """The folder `key` of the cache, built by `build(empty_folder)` unless it stands there intact.

    Raises UserError when the cache cannot be written.
    """
    root = cache_dir() / "backbones"
    folder = root / key
    if not verify and intact(folder):
        return folder
    with exclusive(root / f"{key}.lock"):
        if intact(folder, verify=verify):
            return folder
        if folder.exists():
            warnings.warn(f"the backbone in {folder} is damaged; building it again", stacklevel=2)
        _build(folder, build=build)
    return folder


def intact(folder: Path, *, verify: bool = False) -> bool:
    """Whether each file in the marker has its size and modification time, or else its sha256."""
    try:
        marker = folder / (MARKER if (folder / MARKER).exists() else OLD_MARKER)
        files = json.loads(marker.read_text(encoding="utf-8"))["files"]
        return all(_same(folder / name, told, verify=verify) for name, told in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock `path` against every other process of this machine; a dead holder frees it.

    Without `wait`, False is yielded when another one holds it. Raises UserError when the lock file
    cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as problem:
        raise UserError(
            f"the cache folder {path.parent} cannot be written ({problem.strerror}); "
            "set ERMGAP_CACHE to a folder of yours."
        ) from problem
    with lock:
        yield claim(lock, wait=wait)


def save(model, folder: Path) -> None:
    """Write a model (safetensors) into a folder, on whichever rank of a process group.

    transformers writes on rank 0 alone and says nothing on the others, but on a cluster each
    machine may have a cache of its own, and on one machine any rank may come first.
    """
    model.should_save_on_this_rank = lambda is_main_process: True
    model.save_pretrained(folder)
    if not any(folder.glob("*.safetensors")):
        raise RuntimeError("transformers wrote no weights; build the backbone in one process")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, which otherwise run through ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _same(path: Path, told: dict, *, verify: bool) -> bool:
    found = path.stat()
    if found.st_size != told["size"]:
        return False
    if found.st_mtime_ns == told["mtime_ns"] and not verify:
        return True
    return sha256(path) == told["sha256"]


def _build(folder: Path, *, build: Callable[[Path], None]) -> None:
    for abandoned in folder.parent.glob(f".{folder.name}.*"):  # ours alone while we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with quiet():
            build(fresh)
        _mark(fresh)
        if folder.exists():
            os.replace(folder, fresh.with_suffix(".old"))
        os.replace(fresh, folder)
    except OSError as problem:
        raise UserError(
            f"the backbone cannot be written to {folder.parent} ({problem.strerror}); "
            "make room there or set ERMGAP_CACHE to another folder."
        ) from problem
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(fresh.with_suffix(".old"), ignore_errors=True)


def _mark(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        told = path.stat()
        files[path.name] = {"size": told.st_size, "mtime_ns": told.st_mtime_ns}
        files[path.name]["sha256"] = sha256(path)
    (folder / MARKER).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
