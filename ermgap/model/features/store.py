"""Outputs of the frozen audio tower, computed once per clip for all sweeps and mapped from disk.

    store = ensure(table, model, extractor, revision=tower_revision(model), window_s=4,
                   dtype="float32", device="cpu", progress=lambda done, total: None)
    store["emodb/03a01Fa"]            # float32 [T, d_audio], before the projector, no padding
    store.tensor("emodb/03a01Fa")     # the same as a torch tensor, nothing copied

A clip's key is a hash of its audio (bytes of the file and span); a store belongs to one tower,
window and dtype. It grows by shards, so an interrupted extraction continues, a second sweep
computes only its new clips, and several processes share the work: each locks the shard that it
computes, and the kernel releases the lock of a process that dies. Damaged shards are detected when
the store is opened, and computed again. Reuse is exact as long as the tower is frozen and audio not
augmented.

`ensure` calls `clips_of`, `open_shards`, `chunks` and `fill`; sweeps/extract.py distributes the
same chunks over a cluster.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ermgap import cache_dir
from ermgap.errors import UserError, as_user_error
from ermgap.model.cached_folder import exclusive
from ermgap.model.features.audio_tower import Clip, FeatureEncoder, audio_tower, tower_revision
from ermgap.model.features.shards import TYPES, Shards

if TYPE_CHECKING:
    import torch
    from torch import nn

SHARD = 64  # clips: two seconds of work on a core, lost when a process is killed
MOST_SHARDS = 64  # of a table, because each keeps a file open
WAIT_S = 0.1
__all__ = ["FeatureStore", "chunks", "clips_of", "ensure", "fill", "open_shards", "tower_revision"]
Progress = Callable[[int, int], None]


class FeatureStore(Mapping):
    """Features by utterance id, as views [T, dim] of the files.

    They lie in `folder`; `dim` is their width, `dtype` the name of their dtype: numpy shows
    bfloat16 as uint16 bits, `tensor` as bfloat16. `computed` counts the clips that had to be
    computed for this store. Pickling keeps the names alone; the files are mapped again.
    """

    def __init__(self, keys: dict[str, str], shards: Shards, *, computed: int = 0) -> None:
        self._keys, self._shards, self.computed = keys, shards, computed
        self.folder, self.dim, self.dtype = shards.folder, shards.dim, shards.dtype

    @classmethod
    def open(cls, keys: dict[str, str], folder: Path, dim: int, dtype: str) -> FeatureStore:
        """Map a complete store; UserError when a clip is missing or damaged."""
        shards = Shards(folder, dim=dim, dtype=dtype)
        if missing := shards.refresh(set(keys.values())):
            raise UserError(
                f"{len(missing)} clips are missing in the feature store {folder}; start again."
            )
        return cls(keys, shards)

    def __getitem__(self, utterance_id: str) -> np.ndarray:
        return self._shards.views[self._keys[utterance_id]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __reduce__(self):
        return FeatureStore.open, (self._keys, self.folder, self.dim, self.dtype)

    def tensor(self, utterance_id: str) -> torch.Tensor:
        """Features [T, dim] as a CPU tensor of the store's dtype that shares the file's memory."""
        import torch

        tensor = torch.from_numpy(self[utterance_id])
        return tensor.view(torch.bfloat16) if self.dtype == "bfloat16" else tensor


def ensure(
    table: pd.DataFrame,
    model: nn.Module,
    extractor: Callable,
    *,
    revision: str,
    window_s: int,
    dtype: str,
    device: torch.device | str,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> FeatureStore:
    """The features of every utterance of `table`, computing those that no earlier sweep has.

    `model` is a Qwen2-Audio (bare, or wrapped by peft), already on `device`; `extractor` its
    feature extractor; `revision` names the tower's weights (`tower_revision`). `dtype` is float32,
    bfloat16, float16, float64, or auto for the tower's own. `progress(done, total)` counts clips
    and is called only where some are missing. Several processes may call this at once; each returns
    when all features are there.

    Raises UserError naming the clip for audio that cannot be read, is too short, or for which the
    tower's output is not finite, and for a cache that cannot be written.
    """
    tower = audio_tower(model)
    keys, clips = clips_of(table)
    shards = open_shards(
        tower, extractor, revision=revision, window_s=window_s, dtype=dtype, cache=cache
    )
    computed = 0
    if shards.refresh(clips):
        encoder = FeatureEncoder(
            tower, extractor, window_s=window_s, dtype=shards.dtype, device=device
        )
        computed = fill(shards, clips, chunks(clips), encoder, progress=progress)
    return FeatureStore(keys, shards, computed=computed)


def open_shards(
    tower: nn.Module,
    extractor: Callable,
    *,
    revision: str,
    window_s: int,
    dtype: str,
    cache: Path | None = None,
) -> Shards:
    """The shards of one tower, window and dtype under `cache`; arguments as for `ensure`."""
    dtype = str(tower.conv1.weight.dtype).removeprefix("torch.") if dtype == "auto" else dtype
    if dtype not in TYPES:
        raise UserError(f"features cannot be kept as {dtype!r}; choose one of {', '.join(TYPES)}.")
    name = hashlib.sha256(f"{revision}\n{type(extractor).__name__}".encode()).hexdigest()[:16]
    folder = (cache or cache_dir()) / "features" / f"{window_s}s-{dtype}-{name}"
    return Shards(folder, dim=tower.config.d_model, dtype=dtype)


def clips_of(table: pd.DataFrame) -> tuple[dict[str, str], dict[str, Clip]]:
    """Utterance id -> clip key, and clip key -> (utterance id, path, start, end), by sorted key."""
    from ermgap.corpora import audio

    keys, clips = {}, {}
    for name, *where in table[["utterance_id", "path", "start_s", "end_s"]].itertuples(index=False):
        fault = f"the clip {where[0]} of utterance {name} cannot be read"
        with as_user_error(fault, "put it back or load the corpus again"):
            keys[name] = audio.digest(*where)
        clips.setdefault(keys[name], (name, *where))
    return keys, dict(sorted(clips.items()))


def chunks(clips: Iterable[str]) -> list[list[str]]:
    """The keys, divided into the chunks that become shards.

    The whole table is divided, not the missing keys, so that processes that start at different
    times lock the same chunks.
    """
    names = list(clips)
    size = max(SHARD, -(-len(names) // MOST_SHARDS))
    return [names[first : first + size] for first in range(0, len(names), size)]


def fill(
    shards: Shards,
    clips: Mapping[str, Clip],
    todo: Iterable[list[str]],
    encoder: FeatureEncoder,
    *,
    progress: Progress | None = None,
) -> int:
    """Compute the missing clips of the chunks `todo`, or wait for the process that does.

    Returns how many clips this process computed; raises UserError as `ensure`.
    """

    def compute(missing: set[str]) -> None:
        have, made = len(shards.views), {}
        # batches of similar length
        order = sorted(missing, key=lambda key: (_seconds(clips[key]), key))
        for key, array in zip(order, encoder([clips[key] for key in order]), strict=True):
            made[key] = array
            if progress:
                progress(have + len(made), len(clips))
        fault = f"the features cannot be written to {shards.folder}"
        with as_user_error(fault, "make room there or set ERMGAP_CACHE to another folder"):
            shards.write(made)
        if shards.refresh(missing):
            raise UserError(
                f"features written to {shards.folder} read back damaged; check that disk."
            )

    todo, computed, waited = deque(todo), 0, 0
    while todo:
        chunk = todo.popleft()
        if not shards.refresh(chunk):
            continue
        name = hashlib.sha256("".join(chunk).encode()).hexdigest()[:16]
        with exclusive(shards.folder / "locks" / name, wait=False) as ours:
            if ours:
                # the lock's last holder may have written it
                if missing := shards.refresh(chunk):
                    compute(missing)
                computed, waited = computed + len(missing), 0
                continue
        todo.append(chunk)  # another process has it
        waited += 1
        if waited >= len(todo):  # as it has all the others
            time.sleep(WAIT_S)
            waited = 0
    return computed


def _seconds(clip: Clip) -> float:
    *_, start_s, end_s = clip
    return math.inf if end_s is None or math.isnan(end_s) else end_s - start_s
