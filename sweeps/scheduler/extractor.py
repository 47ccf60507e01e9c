"""The actors that compute audio features: how many of them, and what one does with a chunk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ermgap.config import Config, from_dict
from ermgap.errors import UserError
from ermgap.model.features import store
from ermgap.registry import load_plugins
from sweeps.scheduler.machines import autoscaler

if TYPE_CHECKING:
    import pyarrow as pa

ACTOR_CPUS = 2  # as a worker of a sweep; threads of one process share the weights
GPU_CPUS = 8  # threads that read ahead of a GPU, at most


@dataclass(frozen=True)
class Pool:
    """The actors: how many, the CPUs each holds, and whether each holds a GPU."""

    actors: int
    cpus: int
    gpu: bool

    def __str__(self) -> str:
        device = "GPU" if self.gpu else f"{self.cpus} CPU{'s' * (self.cpus > 1)}"
        return f"{self.actors} process{'es' * (self.actors > 1)} with {device} each"


def plan_pool(
    nodes: Sequence[Mapping[str, float]],
    *,
    device: str,
    chunks: int,
    cpus: int | None = None,
    asked: int = 0,
) -> Pool:
    """As many actors as the nodes carry, but no more than chunks.

    Args:
        nodes: resources of each node (`CPU`, `GPU`), as Ray counts them.
        device: auto, cpu or gpu.
        chunks: pieces of work.
        cpus: that an actor holds; None: 2, and beside a GPU its share of the node, at most 8.
        asked: GPUs that a cluster which has none yet may start; 0 where it does not grow.

    Raises:
        UserError: no node has a CPU, or none a GPU although one is asked for.
    """
    cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise UserError("no node of the Ray cluster has a CPU to work with; start one that has.")
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if device == "gpu" and not gpus and not asked:
        raise UserError("sweep.device is gpu, and no GPU is here; set it to auto or cpu.")
    if device == "gpu" or (device == "auto" and gpus):
        shares = [int(node["CPU"] // node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1]
        wanted = cpus or max(1, min([GPU_CPUS, *shares]))
        return Pool(min(gpus or asked, chunks), wanted, gpu=True)
    each = min(cpus or ACTOR_CPUS, max(cores))
    return Pool(min(sum(count // each for count in cores), chunks), each, gpu=False)


def pool_of(config: Config, address: str | None, *, chunks: int, cpus: int | None = None) -> Pool:
    """`plan_pool` on the nodes of the Ray that is joined; `address` as for a sweep."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    grows = bool(address) and autoscaler.grows()  # else a GPU that is not there never comes
    asked = (config.sweep.slots or 1) * config.sweep.workers if grows else 0
    return plan_pool(nodes, device=config.sweep.device, chunks=chunks, cpus=cpus, asked=asked)


class Extractor:
    """An actor of the pool; it loads the backbone when its first chunk comes, and keeps its tower.

    A call takes one chunk, a row of lists (`key`, and the fields of a clip), and gives back one
    row: clips computed, folder of the store, and the message of a user's mistake ("" for none).
    """

    def __init__(self, *, config: dict, storage: str, roll: str, starts: int, pool: Pool) -> None:
        import torch

        torch.set_num_threads(pool.cpus)
        self.config, self.storage, self.pool = config, Path(storage), pool
        self.roll, self.starts = Path(roll), starts
        self.shards = self.extract = None

    def __call__(self, rows: pa.Table) -> dict[str, list]:
        [chunk] = rows.to_pylist()
        keys = chunk.pop("key")
        clips = dict(zip(keys, zip(*chunk.values(), strict=True), strict=True))
        computed, folder, mistake = 0, "", ""
        try:
            if self.extract is None:
                self._load()
            folder = str(self.shards.folder)
            computed = store.fill(self.shards, clips, [keys], self.extract)
        except UserError as problem:
            mistake = str(problem)
        row = {"clips": len(keys), "computed": computed, "folder": folder, "mistake": mistake}
        return {name: [value] for name, value in row.items()}

    def _load(self) -> None:
        import torch

        from ermgap.model import qwen2_audio
        from ermgap.model.features import audio_tower

        self._sign()
        settings = from_dict(self.config)
        load_plugins(settings.plugins)
        device = torch.device("cuda" if self.pool.gpu else "cpu")
        speech = qwen2_audio.load(settings.backbone, labels=settings.data.labels, device=device)
        encoder, window_s = audio_tower.audio_tower(speech.model), settings.backbone.window_s
        self.shards = store.open_shards(
            encoder,
            speech.extractor,
            revision=audio_tower.tower_revision(speech.model),
            window_s=window_s,
            dtype=str(speech.dtype).removeprefix("torch."),
            cache=self.storage,
        )
        self.extract = audio_tower.FeatureEncoder(  # the decoder is let go
            encoder, speech.extractor, window_s=window_s, dtype=self.shards.dtype, device=device
        )

    def _sign(self) -> None:
        """Refuse a folder that is another one here, and one start too many."""
        if not self.roll.exists():
            raise UserError(
                f"the node {os.uname().nodename} does not see what the first one writes to "
                f"{self.storage}; give --storage a folder that all nodes mount."
            )
        with self.roll.open("ab") as roll:
            roll.write(b".")
        if self.roll.stat().st_size > self.starts:
            raise UserError(
                "the processes that compute features were killed again and again, most likely for "
                "their memory; take larger machines or a smaller backbone, and start again."
            )
