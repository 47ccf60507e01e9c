"""Compute a sweep's audio features beforehand, on all GPUs or CPUs of a cluster.

    python sweeps/extract.py --preset paper --data manifest=PATH --storage PATH --address auto

Ray Data hands chunks of clips to a pool of actors that load the backbone once each; every chunk
becomes one file of the feature store under PATH/features, where a sweep with the same --storage
finds it. What is there is not computed again: an extraction that was killed loses the chunks in
flight, and one that has nothing to do only looks. Without this command each worker of a sweep
computes what is missing itself, which is enough for thousands of clips on one machine.
"""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # not the folder of the command, which would shadow others' modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ermgap.config import Config
from ermgap.errors import UserError, as_user_error, command_line
from ermgap.model.features import store
from sweeps.scheduler.extractor import Extractor, Pool, pool_of
from sweeps.scheduler.machines import machine
from sweeps.setup import command_line as cli
from sweeps.setup import plan as planning

if TYPE_CHECKING:
    import pandas as pd

RESTARTS = 3  # an actor: Ray Data alone would restart one that is killed for its memory for ever


@dataclass(frozen=True)
class Extracted:
    """What `extract` did: the store's folder, the clips in it, and those computed by this call."""

    folder: Path
    clips: int
    computed: int


def extract(
    config: Config,
    table: pd.DataFrame,
    *,
    storage: str | Path,
    address: str | None = None,
    cpus: int | None = None,
    note: Callable[[str], None] = print,
) -> Extracted:
    """Compute the features of every utterance of `table` that `storage` lacks.

    They are those that `features.ensure(..., cache=storage)` computes, on a CPU to the bit. Joins
    the Ray cluster at `address`, or starts Ray here, unless Ray runs already.

    Args:
        config: of the sweep; `backbone`, `data.labels`, `plugins` and `sweep.device` count.
        table: utterances; their paths, and `storage`, lead to the same files on all nodes.
        storage: folder; the store is under `storage / "features"`.
        address: of a running Ray cluster, such as auto.
        cpus: that an actor holds; see `plan_pool`.
        note: gets progress, a line a chunk.

    Raises:
        UserError: as `features.ensure`; also for a folder that some node does not see, and for
            actors that die again and again.
    """

    storage = Path(storage).absolute()
    _, clips = store.clips_of(table)
    chunks = store.chunks(clips)
    machine.join_ray(address)
    pool = pool_of(config, address, chunks=len(chunks), cpus=cpus)
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
    """What an `Extractor` returns of each chunk, in the order in which they end."""
    import ray
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    names = ("utterance_id", "path", "start_s", "end_s")
    work = []
    for keys in chunks:
        columns = map(list, zip(*(clips[key] for key in keys), strict=True))
        work.append({"key": list(keys)} | dict(zip(names, columns, strict=True)))
    results = ray.data.from_items(work, override_num_blocks=len(work)).map_batches(
        Extractor,
        fn_constructor_kwargs=wanted,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=pool.actors, max_tasks_in_flight_per_actor=1),
        num_cpus=pool.cpus,
        num_gpus=1 if pool.gpu else 0,
    )
    yield from results.iter_rows()


def _roll(storage: Path) -> Path:
    """A new file in the store, to which every actor that sees it adds a line as it starts."""
    roll = storage / "features" / f".started-{uuid.uuid4().hex}"
    with as_user_error(f"--storage {storage} cannot be written", "name another folder"):
        roll.parent.mkdir(parents=True, exist_ok=True)
        roll.touch()
    return roll


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, raises UserError for mistakes."""
    given = cli.parse(cli.options(__doc__.splitlines()[0], many=False), arguments)
    cli.refuse_uri(given, "storage")
    if given.out or given.resume:
        raise UserError("features have no folder of results; omit --out and --resume.")
    if not given.storage:
        raise UserError("--storage is missing: give it a folder that all nodes mount.")
    config = cli.make_config(given)
    if not given.dry_run:
        machine.begin(given.address)
    plan = planning.make_plan(config)
    print(plan.description)
    if given.dry_run:
        return 0
    done = extract(config, plan.utterances, storage=given.storage, address=given.address)
    print(f"features: {done.folder} holds {done.clips} clips, {done.computed} computed now")
    return 0


if __name__ == "__main__":
    command_line(main)
