"""Where checkpoints, predictions and adapters lie: a folder, or a bucket behind a folder.

    store = Storage.at("s3://bucket/sweeps/demo", folder=here)     # or at a path: that folder
    store.write("predictions/t0000.parquet", lambda path: table.to_parquet(path))
    table = pd.read_parquet(store.fetch("predictions/t0000.parquet"))

Buckets are reached by pyarrow (s3://, gs://), with the credentials and the AWS_ENDPOINT_URL of the
environment. An object appears whole or not at all. A storage that refuses a write is tried again
for ERMGAP_STORAGE_PATIENCE_S (default 600 s) before the sweep is stopped. Neither torch nor Ray is
imported here.
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
from ermgap.records.files import write_atomically

SCHEMES = ("s3", "gs", "gcs")
T = TypeVar("T")


def patience() -> float:
    """Seconds for which a disk or a bucket that refuses is tried again."""
    return float(os.environ.get("ERMGAP_STORAGE_PATIENCE_S", "600"))


class StorageError(UserError):
    """A storage that went on refusing; the message says which, and how to go on."""


def is_uri(place: Path | str) -> bool:
    """Whether a place is a URI rather than a path."""
    return "://" in str(place)


def absolute(place: str | None) -> str | None:
    """A place that means the same in another process: a URI as it is, a path from the root."""
    return place if not place or is_uri(place) else str(Path(place).absolute())


class Storage:
    """Files by name ("predictions/t0000.parquet") in a folder, or in a bucket.

    Args:
        folder: where the files lie; of a bucket, where what is fetched lies.
        uri: of the bucket and the prefix in it, or None.

    Raises:
        UserError: the URI is not of a bucket that can be reached.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self.folder, self.uri = folder, uri
        self._bucket, self._prefix = _open(uri) if uri else (None, "")

    @classmethod
    def at(cls, place: Path | str, *, folder: Path | None = None) -> Storage:
        """The storage at a path or URI; without a `folder`, a bucket's is a temporary one."""
        if not is_uri(place):
            return cls(Path(place))
        uri = str(place).rstrip("/")
        if folder is not None:
            return cls(folder, uri)
        temporary = tempfile.TemporaryDirectory(prefix="ermgap-")
        made = cls(Path(temporary.name), uri)
        made._temporary = temporary  # it goes when this object does
        return made

    # Write --------------------------------------------------------------------------------------

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file whole or not at all: `write` is given a temporary path.

        Raises:
            StorageError: the storage refused for as long as is waited for it.
        """
        path = self.folder / name
        self.patiently(lambda: write_atomically(path, write), f"{name} cannot be written")
        if self._bucket is not None:
            self.upload(name)
            path.unlink(missing_ok=True)

    def write_folder(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a folder of files, each whole or not at all: `write` is given a temporary folder.

        Raises:
            StorageError: as for `write`.
        """
        with tempfile.TemporaryDirectory(prefix="ermgap-") as temporary:
            write(Path(temporary))
            for made in sorted(Path(temporary).iterdir()):
                self.write(f"{name}/{made.name}", lambda path, made=made: shutil.copy(made, path))

    def upload(self, name: str) -> None:
        """Copy a file of the folder into the bucket; nothing where there is no bucket."""
        if self._bucket is not None:
            where = self._where(name)
            self.patiently(
                lambda: _copy_in(self._bucket, where, self.folder / name), f"{where} is refused"
            )

    def try_out(self) -> bool:
        """Write and remove an object, at once or not at all; whether no sweep lies here yet.

        Raises:
            OSError: the bucket refuses.
        """
        where = self._where(".writable")
        with self._bucket.open_output_stream(where) as target:
            target.write(b"yes")
        self._bucket.delete_file(where)
        return not self._bucket.get_file_info(self._where("sweep.yaml")).is_file

    def patiently(self, action: Callable[[], T], trouble: str) -> T:
        """Do `action`, again and again while it raises OSError and patience lasts."""
        begun, pause = time.monotonic(), 0.5
        while True:
            try:
                return action()
            except OSError as problem:
                waited = time.monotonic() - begun
                words = f"{trouble} ({problem.strerror or first_line(problem)})"
                if waited > patience():
                    raise StorageError(
                        f"the storage {self.uri or self.folder} failed for {waited:.0f} s: "
                        f"{words}; make it writable, then continue with --resume."
                    ) from problem
                logging.getLogger(__name__).warning("%s; trying again", words)
                # Many workers that failed together shall not come back together.
                time.sleep(min(pause * random.uniform(0.7, 1.3), patience()))
                pause = min(2 * pause, 15.0)

    # Read ---------------------------------------------------------------------------------------

    def fetch(self, name: str) -> Path:
        """The path of a file, copied from the bucket if that has another one; absent if there is
        none."""
        path = self.folder / name
        if self._bucket is not None:
            info = self.patiently(
                lambda: self._bucket.get_file_info(self._where(name)), f"{name} cannot be read"
            )
            if info.is_file and not _is_copy(path, info):
                self._download(name, path, info)
        return path

    def fetch_folder(self, name: str) -> Path:
        """The path of a folder, with every file of the bucket's in it; absent if there is none."""
        for file in self.names(name) if self._bucket is not None else ():
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

        where = self._where(name)
        selector = fs.FileSelector(where, allow_not_found=True, recursive=recursive)
        infos = self.patiently(
            lambda: self._bucket.get_file_info(selector), f"{name} cannot be listed"
        )
        return sorted(info.path.removeprefix(f"{where}/") for info in infos if info.is_file)

    # Remove -------------------------------------------------------------------------------------

    def remove(self, name: str) -> None:
        """Remove a file or a folder, wherever it lies; what cannot be removed stays."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if self._bucket is None:
            return
        try:
            files = self.names(name)
            for where in [f"{name}/{file}" for file in files] or [name]:
                self._bucket.delete_file(self._where(where))
        except OSError as problem:
            logging.getLogger(__name__).debug("%s stays: %s", name, problem)

    # Inside -------------------------------------------------------------------------------------

    def _where(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _download(self, name: str, path: Path, info) -> None:
        def copy(temporary: Path) -> None:
            with self._bucket.open_input_stream(self._where(name)) as source:
                with open(temporary, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)

        self.patiently(lambda: write_atomically(path, copy), f"{name} cannot be read")
        os.utime(path, ns=(info.mtime_ns, info.mtime_ns))


def _open(uri: str):
    """pyarrow's file system and the path in it; UserError where there is no such thing."""
    from pyarrow import ArrowException, fs

    if uri.split("://", 1)[0] not in SCHEMES:
        raise UserError(
            f"{uri} is no storage that is known; give a folder that all nodes mount, or a bucket "
            "as s3://BUCKET/PREFIX or gs://BUCKET/PREFIX."
        )
    try:
        system, prefix = fs.FileSystem.from_uri(uri)
    except (OSError, ValueError, ArrowException) as problem:
        words = first_line(problem)
        raise UserError(f"{uri} cannot be opened ({words}); mend the URI.") from problem
    if not prefix.strip("/"):
        raise UserError(f"{uri} names no bucket; give s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.")
    return system, prefix.rstrip("/")


def _copy_in(bucket, where: str, path: Path) -> None:
    with open(path, "rb") as source, bucket.open_output_stream(where) as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _is_copy(path: Path, info) -> bool:
    """Whether a file is the bucket's: its size and time, fetched after the second it was put in.

    Buckets tell whole seconds: what was fetched within one may have been replaced in it.
    """
    try:
        have = path.stat()
    except OSError:
        return False
    same = (have.st_size, have.st_mtime_ns) == (info.size, info.mtime_ns)
    return same and have.st_ctime_ns > info.mtime_ns + 2_000_000_000
