"""Where checkpoints, predictions and adapters are kept: in a folder, or in a bucket.

    store = Storage("s3://bucket/sweeps/demo", folder=here)     # or at a path: that folder
    store.write("predictions/t0000.parquet", lambda path: table.to_parquet(path))
    table = pd.read_parquet(store.fetch("predictions/t0000.parquet"))

Buckets are reached by pyarrow (s3://, gs://), with the credentials and the AWS_ENDPOINT_URL of the
environment. An object appears whole or not at all. What a storage refuses is tried again for
ERMGAP_STORAGE_PATIENCE_S (default 600 s) before the sweep is stopped.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ermgap.errors import UserError, first_line
from ermgap.records import file_names
from ermgap.records.files import write_atomically

SCHEMES = ("s3", "gs", "gcs")
T = TypeVar("T")


class StorageError(UserError):
    """A storage that failed for longer than it is waited for; the message says how to go on."""


class Retry:
    """The pauses between the tries of one action that a disk or a bucket refuses for a while.

    Args:
        place: path or URI of the storage.
        trouble: what does not work, as a clause: "x.parquet cannot be written".
        longest_s: a pause grows up to this.
    """

    def __init__(self, place: Path | str, trouble: str, *, longest_s: float = 15.0) -> None:
        self.place, self.trouble, self.longest_s = place, trouble, longest_s
        self.begun, self.next_s = time.monotonic(), min(0.5, longest_s)
        self.warned = False
        self.patience_s = float(os.environ.get("ERMGAP_STORAGE_PATIENCE_S", "600"))

    def pause(self, problem: OSError) -> float:
        """Seconds to wait before the next try; StorageError where the storage failed for long."""
        waited = time.monotonic() - self.begun
        message = f"{self.trouble} ({problem.strerror or first_line(problem)})"
        if waited > self.patience_s:
            raise StorageError(
                f"the storage {self.place} failed for {waited:.0f} s: {message}; make room or make "
                "it writable, then continue with --resume."
            ) from problem
        if not self.warned:
            logging.getLogger(__name__).warning(
                "%s; trying again for %.0f s", message, self.patience_s
            )
        self.warned = True
        # Many workers that failed together shall not come back together.
        pause = min(self.next_s * random.uniform(0.7, 1.3), self.patience_s)
        self.next_s = min(2 * self.next_s, self.longest_s)
        return pause


def is_uri(place: Path | str) -> bool:
    """Whether a place is a URI rather than a path."""
    return "://" in str(place)


class Storage:
    """Files by name ("predictions/t0000.parquet") in a folder, or in a bucket.

    Args:
        place: the folder's path, or the URI of the bucket and the prefix in it.
        folder: where fetched copies of a bucket's files are kept; None: a temporary one.

    Raises UserError for a URI that is not of a bucket that can be reached.
    """

    def __init__(self, place: Path | str, *, folder: Path | None = None) -> None:
        self.uri = str(place).rstrip("/") if is_uri(place) else None
        if self.uri and folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="ermgap-")  # removed with this
            folder = Path(self._temporary.name)
        self.folder = folder if self.uri else Path(place)
        self._bucket = _open(self.uri) if self.uri else None

    # Write --------------------------------------------------------------------------------------

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file whole or not at all: `write` is given a temporary path.

        Raises StorageError when the storage failed for as long as it is waited for.
        """
        path = self.folder / name
        self._patiently(lambda: write_atomically(path, write), f"{name} cannot be written")
        if self._bucket is not None:
            self.upload(name)
            path.unlink(missing_ok=True)

    def write_folder(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a folder of files, each as `write` does; `write` is given a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="ermgap-") as temporary:
            write(Path(temporary))
            for file in sorted(Path(temporary).iterdir()):
                self.write(f"{name}/{file.name}", lambda path, file=file: shutil.copy(file, path))

    def upload(self, name: str) -> None:
        """Copy a file of the folder into the bucket."""

        def copy() -> None:
            with open(self.folder / name, "rb") as source:
                with self._bucket.open_output_stream(name) as target:
                    shutil.copyfileobj(source, target, 1 << 20)

        self._patiently(copy, f"{name} cannot be written")

    def require_writable(self) -> bool:
        """Write and remove an object of the bucket, in one try; whether no sweep is here yet.

        Raises OSError when the bucket refuses.
        """
        with self._bucket.open_output_stream(".writable") as target:
            target.write(b"yes")
        self._bucket.delete_file(".writable")
        return not self._bucket.get_file_info(file_names.SWEEP).is_file

    # Read ---------------------------------------------------------------------------------------

    def fetch(self, name: str) -> Path:
        """The path of a file, which may be absent; of a bucket's file, that of an up-to-date copy.

        Raises StorageError as `write`.
        """
        path = self.folder / name
        if self._bucket is not None:
            info = self._patiently(
                lambda: self._bucket.get_file_info(name), f"{name} cannot be read"
            )
            if info.is_file and not _is_copy(path, info):
                self._download(name, path, info)
        return path

    def fetch_folder(self, name: str) -> Path:
        """The path of a folder, which may be absent, with copies of the bucket's files in it."""
        for file in self.names(name):
            self.fetch(f"{name}/{file}")
        return self.folder / name

    def names(self, name: str, *, recursive: bool = False) -> list[str]:
        """Names of the files in a folder, in order; empty where there is no such folder.

        `recursive` lists the folders in it as well: "t0000/epoch-0001.pt".
        """
        if self._bucket is None:
            folder = self.folder / name
            paths = [path for path in folder.glob("**/*" if recursive else "*") if path.is_file()]
            visible = [path for path in paths if not path.name.startswith(".")]
            return sorted(path.relative_to(folder).as_posix() for path in visible)
        from pyarrow import fs

        selector = fs.FileSelector(name, allow_not_found=True, recursive=recursive)
        infos = self._patiently(
            lambda: self._bucket.get_file_info(selector), f"{name} cannot be listed"
        )
        return sorted(info.path.removeprefix(f"{name}/") for info in infos if info.is_file)

    # Remove -------------------------------------------------------------------------------------

    def remove(self, name: str) -> None:
        """Remove a file or a folder of files, and its copy; what cannot be removed stays."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if self._bucket is None:
            return
        try:
            for file in [f"{name}/{file}" for file in self.names(name)] or [name]:
                self._bucket.delete_file(file)
        except OSError as problem:
            logging.getLogger(__name__).debug("%s stays: %s", name, problem)

    # Inside -------------------------------------------------------------------------------------

    def _patiently(self, action: Callable[[], T], trouble: str) -> T:
        """What `action` returns, tried again while it raises OSError (see `Retry`)."""
        retry = Retry(self.uri or self.folder, trouble)
        while True:
            try:
                return action()
            except OSError as problem:
                time.sleep(retry.pause(problem))

    def _download(self, name: str, path: Path, info) -> None:
        def copy(temporary: Path) -> None:
            with self._bucket.open_input_stream(name) as source:
                with open(temporary, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)

        self._patiently(lambda: write_atomically(path, copy), f"{name} cannot be read")
        os.utime(path, ns=(info.mtime_ns, info.mtime_ns))


def _open(uri: str):
    """pyarrow's file system of a bucket's prefix; UserError where there is no such thing."""
    from pyarrow import ArrowException, fs

    if uri.split("://", 1)[0] not in SCHEMES:
        raise UserError(
            f"{uri} is no storage that is known; give a folder that all nodes mount, or a bucket "
            "as s3://BUCKET/PREFIX or gs://BUCKET/PREFIX."
        )
    try:
        system, prefix = fs.FileSystem.from_uri(uri)
    except (OSError, ValueError, ArrowException) as problem:
        raise UserError(
            f"{uri} cannot be opened ({first_line(problem)}); correct the URI."
        ) from problem
    if not prefix.strip("/"):
        raise UserError(f"{uri} names no bucket; give s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.")
    return fs.SubTreeFileSystem(prefix.rstrip("/"), system)


def _is_copy(path: Path, info) -> bool:
    """Whether a file is a copy of the bucket's: the same size and time, and fetched later.

    Buckets give times in whole seconds: what was fetched within the second of a write may have been
    replaced in that second.
    """
    try:
        copy = path.stat()
    except OSError:
        return False
    same = (copy.st_size, copy.st_mtime_ns) == (info.size, info.mtime_ns)
    return same and copy.st_ctime_ns > info.mtime_ns + 2_000_000_000
