"""A folder of arrays on disk that many processes write and read at once.

    shards = Shards(folder, dim=384, dtype="float32")
    shards.write({key: array, ...})            # one file, written atomically
    shards.refresh(keys)                       # maps those that are on disk, verified
    shards.views[key]                          # [rows, dim], a view of the file, nothing copied

A shard is `NAME.bin`, rows of `dim` numbers without padding, and `NAME.json`, renamed into place
after it: `{"dtype", "dim", "bytes", "clips": {key: [first row, rows, crc32]}}`. A shard whose size
or checksum is wrong is reported and removed, and the caller computes it again. A reader keeps what
it has mapped even while another process replaces the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from ermgap.model.cached_folder import exclusive
from ermgap.records import write_atomically

# bfloat16 is stored as its bits: numpy has no such type
TYPES = {"float32": np.float32, "bfloat16": np.uint16, "float64": np.float64, "float16": np.float16}


class _Damaged(Exception):
    """A shard that cannot be used; the message says what is wrong with it."""


class Shards:
    """The shards of one folder; `views` holds the verified arrays by key, [rows, dim] each."""

    def __init__(self, folder: Path, *, dim: int, dtype: str) -> None:
        self.folder, self.dim, self.dtype = folder, dim, dtype
        self.views: dict[str, np.ndarray] = {}
        self._opened: dict[str, tuple[dict, np.ndarray]] = {}

    def refresh(self, keys: Collection[str]) -> set[str]:
        """Map those of `keys` that are on disk; returns the ones that are not.

        Every array is checked against its crc32 when it is first mapped. Warns of damaged shards.
        """
        missing = {key for key in keys if key not in self.views}
        for path in sorted(self.folder.glob("*.json")) if missing else ():
            self._take(path.stem, missing=missing)
        return missing

    def write(self, arrays: dict[str, np.ndarray]) -> None:
        """Write arrays [rows, dim] of the folder's dtype as one shard, on disk at return."""
        name = hashlib.sha256("".join(sorted(arrays)).encode()).hexdigest()[:16]
        clips, row = {}, 0
        for key, array in arrays.items():
            clips[key] = [row, len(array), zlib.crc32(np.ascontiguousarray(array))]
            row += len(array)
        whole = np.ascontiguousarray(np.concatenate(list(arrays.values())), TYPES[self.dtype])
        index = {"dtype": self.dtype, "dim": self.dim, "bytes": whole.nbytes, "clips": clips}
        with exclusive(self.folder / "publish.lock"):
            write_atomically(self.folder / f"{name}.bin", lambda path: path.write_bytes(whole.data))
            text = json.dumps(index)
            write_atomically(self.folder / f"{name}.json", lambda path: path.write_text(text))

    def _take(self, name: str, *, missing: set[str]) -> None:
        """Map a shard; delete a damaged one, unless another process replaces it in the meantime."""
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            try:
                return self._map(name, missing=missing)
            except _Damaged:
                pass
            with exclusive(self.folder / "publish.lock"):
                try:
                    self._map(name, missing=missing)
                except _Damaged as problem:
                    warnings.warn(
                        f"the feature file {self.folder / name}.bin is damaged ({problem}); "
                        "its clips are computed again",
                        stacklevel=4,
                    )
                    for suffix in (".json", ".bin"):
                        (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def _map(self, name: str, *, missing: set[str]) -> None:
        if name not in self._opened:
            self._opened[name] = self._open(name)
        clips, rows = self._opened[name]
        views = {}
        for key in missing.intersection(clips):
            first, count, checksum = clips[key]
            views[key] = rows[first : first + count]
            if zlib.crc32(views[key]) != checksum:
                del self._opened[name]
                raise _Damaged("its checksum is wrong")  # none of it is used: it will be removed
        self.views |= views
        missing.difference_update(views)

    def _open(self, name: str) -> tuple[dict, np.ndarray]:
        path = self.folder / f"{name}.bin"
        try:
            index = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            clips, size = {k: tuple(map(int, v)) for k, v in index["clips"].items()}, index["bytes"]
            same = (index["dtype"], index["dim"]) == (self.dtype, self.dim)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise _Damaged("its index cannot be read") from problem
        if not path.exists() or path.stat().st_size != size or size == 0 or not same:
            raise _Damaged("its size is wrong")
        # mode "c": writable, as torch demands, private to this process, and never written back
        flat = np.memmap(path, dtype=TYPES[self.dtype], mode="c")
        rows = len(flat) // self.dim
        if any(first + count > rows or count < 1 for first, count, _ in clips.values()):
            raise _Damaged("its index points outside of it")
        return clips, flat.reshape(-1, self.dim).view(np.ndarray)
