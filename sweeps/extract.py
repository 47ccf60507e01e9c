"""Compute a sweep's audio features beforehand, on all GPUs or CPUs of a cluster.

    python sweeps/extract.py --preset paper --data manifest=PATH --storage PATH --address auto

Ray Data hands chunks of clips to a pool of actors that load the backbone once each; every chunk
becomes one file of the feature store under PATH/features, where a sweep with the same --storage
finds it. What is there is not computed again: an extraction that was killed loses the chunks in
flight, and one that has nothing to do only looks. Without this command each worker of a sweep
computes what is missing by itself, which is enough for thousands of clips on one machine.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ermgap import config as configuration
from ermgap.backbone import features
from ermgap.config import Config
from ermgap.errors import UserError, command_line
from ermgap.registry import load_plugins
from sweeps import cli, machine
from sweeps import plan as planning

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ACTOR_CPUS = 2  # as a worker of a sweep; threads of one process share the weights
GPU_CPUS = 8  # threads that read ahead of a GPU, at most
RESTARTS = 3  # an actor: Ray Data alone would restart one that is killed for its memory for ever


@dataclass(frozen=True)
class Pool:
    """The actors: how many, the CPUs each holds, and whether each holds a GPU."""

    actors: int
    cpus: int
    gpu: bool

    def __str__(self) -> str:
        device = "GPU" if self.gpu else f"{self.cpus} CPU{'s' * (self.cpus > 1)}"
        return f"{self.actors} process{'es' * (self.actors > 1)} with {device} each"


@dataclass(frozen=True)
class Extracted:
    """What `extract` did: the store's folder, the clips in it, and those computed by this call."""

    folder: Path
    clips: int
    computed: int


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


class Extractor:
    """An actor of the pool; it loads the backbone when its first chunk comes, and keeps its tower.

    A call takes one chunk, a row of lists (`key`, and the fields of a clip), and gives back one
    row: clips computed, folder of the store, and a user's mistake in words ("" if there is none).
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
            computed = features.fill(self.shards, clips, [keys], self.extract)
        except UserError as problem:
            mistake = str(problem)
        told = {"clips": len(keys), "computed": computed, "folder": folder, "mistake": mistake}
        return {name: [value] for name, value in told.items()}

    def _load(self) -> None:
        import torch

        from ermgap.backbone import qwen2_audio, tower

        self._sign()
        settings = configuration.from_dict(self.config)
        load_plugins(settings.plugins)
        device = torch.device("cuda" if self.pool.gpu else "cpu")
        speech = qwen2_audio.load(settings.backbone, labels=settings.data.labels, device=device)
        encoder, window_s = tower.audio_tower(speech.model), settings.backbone.window_s
        self.shards = features.open_shards(
            encoder,
            speech.extractor,
            revision=tower.tower_revision(speech.model),
            window_s=window_s,
            dtype=str(speech.dtype).removeprefix("torch."),
            cache=self.storage,
        )
        self.extract = tower.Extract(  # the decoder is let go
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


def extract(
    config: Config,
    table: pd.DataFrame,
    *,
    storage: str | Path,
    address: str | None = None,
    cpus: int | None = None,
    note: Callable[[str], None] = print,
) -> Extracted:
    """See to it that `storage` holds the features of every utterance of `table`.

    They are those that `features.ensure(..., cache=storage)` computes, on a CPU to the bit. Joins
    the Ray cluster at `address`, or starts Ray here, unless Ray runs already.

    Args:
        config: of the sweep; `backbone`, `data.labels`, `plugins` and `sweep.device` count.
        table: utterances; their paths, and `storage`, lead to the same files on all nodes.
        storage: folder; the store is under `storage / "features"`.
        address: of a running Ray cluster, such as auto.
        cpus: that an actor holds; see `plan_pool`.
        note: is told of progress, a line a chunk.

    Raises:
        UserError: as `features.ensure`; also for a folder that some node does not see, and for
            actors that die again and again.
    """
    import ray

    storage = Path(storage).absolute()
    _, clips = features.clips_of(table)
    chunks = features.chunks(clips)
    machine.join_ray(address)
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = (config.sweep.slots or 1) * config.sweep.workers if address else 0
    told = {"device": config.sweep.device, "chunks": len(chunks), "cpus": cpus, "asked": asked}
    pool = plan_pool(alive, **told)
    note(f"features of {len(clips)} clips in chunks of up to {len(chunks[0])}, on {pool}")
    roll = _roll(storage)
    wanted = {
        "config": config.to_dict(),
        "storage": str(storage),
        "roll": str(roll),
        "starts": pool.actors * (1 + RESTARTS),
        "pool": pool,
    }
    done = computed = 0
    try:
        for row in _rows(chunks, clips, pool, wanted):
            if row["mistake"]:
                raise UserError(row["mistake"])
            done, computed, folder = done + row["clips"], computed + row["computed"], row["folder"]
            note(f"audio features {done}/{len(clips)} ({computed} computed now)")
    finally:
        roll.unlink(missing_ok=True)
    return Extracted(Path(folder), len(clips), computed)


def _rows(
    chunks: Sequence[Sequence[str]], clips: Mapping[str, tuple], pool: Pool, wanted: dict
) -> Iterator[dict]:
    """What the actors answer for each chunk, in the order in which they end."""
    import ray
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    names = ("utterance_id", "path", "start_s", "end_s")
    work = []
    for keys in chunks:
        columns = map(list, zip(*(clips[key] for key in keys), strict=True))
        work.append({"key": list(keys)} | dict(zip(names, columns, strict=True)))
    answers = ray.data.from_items(work, override_num_blocks=len(work)).map_batches(
        Extractor,
        fn_constructor_kwargs=wanted,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=pool.actors, max_tasks_in_flight_per_actor=1),
        num_cpus=pool.cpus,
        num_gpus=1 if pool.gpu else 0,
    )
    yield from answers.iter_rows()


def _roll(storage: Path) -> Path:
    """An empty file in the store, in which every actor signs as it starts if it sees it."""
    roll = storage / "features" / f".started-{uuid.uuid4().hex}"
    try:
        roll.parent.mkdir(parents=True, exist_ok=True)
        roll.touch()
    except OSError as problem:
        raise UserError(
            f"--storage {storage} cannot be written ({problem.strerror}); name another folder."
        ) from problem
    return roll


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, raises UserError for mistakes."""
    given = cli.parse(cli.options(__doc__.splitlines()[0], many=False), arguments)
    cli.refuse_later_flags(given)
    if given.out or given.resume:
        raise UserError("features have no folder of results; leave --out and --resume away.")
    if not given.storage:
        raise UserError("where to? Give --storage a folder that all nodes mount.")
    config = cli.make_config(given)
    if not given.dry_run:
        machine.begin(given.address)
    plan = planning.make_plan(config)
    print(plan.words)
    if given.dry_run:
        return 0
    made = extract(config, plan.utterances, storage=given.storage, address=given.address)
    print(f"features: {made.folder} holds {made.clips} clips, {made.computed} computed now")
    return 0


if __name__ == "__main__":
    command_line(main)
