"""FSDP: two workers that share the decoder's weights train as two that hold them whole."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import tiny_run
import torch
from tiny_run import LABELS, WINDOW_S, Trained, job

from ermgap import config
from ermgap.distributed import World
from ermgap.model import fsdp, qwen2_audio
from ermgap.records import Storage
from ermgap.training.batch_sampler import micro_batches
from ermgap.training.context import TrainingContext

LAYERS = 3
RUNS = {
    "one pass": {"train.epochs": 2},
    # Cut into other passes than whole weights are, dropout would draw other masks.
    "passes": {
        "train.epochs": 2,
        "train.micro_batch": 2,
        "train.eval_batch": 5,
        "adapter.dropout": 0.0,
    },
    "recomputed": {"train.epochs": 1, "train.recompute": True},
}


def loaded(world: World | None):
    settings = config.Backbone("random-tiny", layers=LAYERS, window_s=WINDOW_S, dtype="float64")
    return qwen2_audio.load(settings, labels=LABELS, device=torch.device("cpu"), shards=world)


def work(rank: int, size: int, folder: str) -> None:
    """One of the workers: every run with whole and with sharded weights."""
    folder = Path(folder)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size
    )
    world, seen = World(rank, size), {}
    table = pd.read_parquet(folder / "table.parquet")
    for kind in ("ddp", "fsdp"):
        speech = loaded(world if kind == "fsdp" else None)
        seen[kind, "held"] = [local_weights(speech.model)]
        context = TrainingContext(
            *tiny_run.splits(table, speech, cache=folder / "cache"), Storage("")
        )
        for name, changes in RUNS.items():
            task = job(changes | {"train.parallel": kind, "sweep.workers": 2})
            run = Trained((speech, context), task, folder / kind / name, world=world)
            values = [p.detach().flatten() for _, p in speech.trainable()]
            seen[kind, name] = (run.results, torch.cat(values))
            seen[kind, "held"].append(local_weights(speech.model))
    torch.save(seen, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def local_weights(model) -> int:
    """Number of the decoder layers' weights in this worker's memory at the moment."""
    layers = model.model.language_model.layers
    parameters = [p for layer in layers for p in layer.parameters()]
    return sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in parameters)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("sharded")
    table = tiny_run.tones(folder / "tones")
    table = table.drop(index=table.index[table["split"] == "dev"][:3])  # unequal shares of dev
    table.to_parquet(folder / "table.parquet")
    tiny_run.splits(table, loaded(None), cache=folder / "cache")
    tiny_run.in_processes(work, 2, str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", RUNS)
def test_sharded_weights_give_the_adapter_of_whole_ones_and_in_equal_passes_its_bits(seen, name):
    for worker in seen:
        sharded, whole = (worker[kind, name][1] for kind in ("fsdp", "ddp"))
        assert torch.allclose(sharded, whole, rtol=1e-9, atol=1e-12)
        assert name == "passes" or torch.equal(sharded, whole)
    rows = [seen[0][kind, name][0] for kind in ("fsdp", "ddp")]
    assert len(rows[0]) == RUNS[name]["train.epochs"] and (name == "passes" or rows[0] == rows[1])


def test_a_worker_holds_its_share_of_the_layers_before_and_after_every_run(seen):
    whole = seen[0]["ddp", "held"][0]
    assert seen[0]["ddp", "held"] == [whole] * 4
    for worker in seen:
        shares = worker["fsdp", "held"]
        assert len(set(shares)) == 1 and 0.45 * whole < shares[0] < 0.55 * whole


@pytest.mark.parametrize("batch", [4, 5, 9, 64])
@pytest.mark.parametrize("size", [None, 2, 3, 16])
@pytest.mark.parametrize("world", [2, 3])
def test_all_workers_make_equally_many_passes_none_of_them_empty(batch, size, world):
    if batch < 2 * world:
        return
    wanted = fsdp.step_pieces(batch, world=world, size=size)
    rows, lengths = torch.arange(batch).numpy(), torch.arange(batch).numpy()[::-1]
    for rank in range(world):
        pieces = micro_batches(rows[rank::world], size=size, lengths=lengths, pieces=wanted)
        assert len(pieces) == wanted and all(len(piece) for piece in pieces)
        assert size is None or max(map(len, pieces)) <= size


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "sweep.workers"),
        ({"sweep.workers": 4, "train.batch": 7}, "train.batch"),
        ({"sweep.workers": 2, "train.micro_batch": 1}, "train.micro_batch"),
    ],
)
def test_what_cannot_be_sharded_is_refused_with_what_to_set(changes, key):
    from ermgap.errors import UserError

    with pytest.raises(UserError, match=key):
        config.Config().replace({"train.parallel": "fsdp"} | changes)
