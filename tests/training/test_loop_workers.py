"""Two workers train as one does, end together, and go on from a checkpoint bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_run
import torch
from tiny_run import Trained, job

from ermgap.distributed import World
from ermgap.records import Storage
from ermgap.training import trainer
from ermgap.training.context import TrainingContext

EXACT = {"adapter.dropout": 0.0, "train.epochs": 2, "objective.p": 1.5}
RANDOM = {"train.epochs": 3, "train.micro_batch": 2}


def room_of(folder: Path):
    """The backbone in float64 and the training context, from what the parent has made."""
    speech = tiny_run.speech("float64")
    table = pd.read_parquet(folder / "table.parquet")
    return speech, TrainingContext(
        *tiny_run.splits(table, speech, cache=folder / "cache"), Storage("")
    )


def work(rank: int, size: int, folder: str) -> None:
    """One of the workers: several runs, one after another; what it saw goes to a file."""
    folder = Path(folder)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size
    )
    room, world = room_of(folder), World(rank, size)
    runs = {
        "exact": (job(EXACT), None),
        "fails": (job({"train.lr": 1e30}), None),
        "whole": (job(RANDOM), None),
        "resumed": (job(RANDOM), 2),
        "resumed again": (job(RANDOM, epoch=2), None),
    }
    seen, trained = {}, []
    exact = trainer.accumulate_gradients

    def noted(*arguments, batches, **named):
        trained.extend(int(row) for batch in batches for row in batch.index)
        return exact(*arguments, batches=batches, **named)

    trainer.accumulate_gradients = noted
    for name, (task, until) in runs.items():
        storage = folder / "storage" / name.split()[0]
        run = Trained(room, task, storage, until=until, world=world)
        parameters = [p.detach().flatten() for _, p in room[0].trainable()]
        seen[name] = (run.rows, run.failure, torch.cat(parameters), tuple(trained))
        trained.clear()
    torch.save(seen, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    tiny_run.tones(folder / "tones").to_parquet(folder / "table.parquet")
    room_of(folder)
    tiny_run.in_processes(work, 2, str(folder))
    return folder


@pytest.fixture(scope="module")
def seen(folder) -> list[dict]:
    """Per worker and run: rows, failure, trained parameters, and the utterances trained on."""
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def numbers(value) -> list[float]:
    """All floats of nested results, in order."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_two_workers_give_the_losses_predictions_and_adapter_of_one(folder, seen, tmp_path):
    one = Trained(room_of(folder), job(EXACT), tmp_path)
    rows = seen[0]["exact"][0]
    two = Trained.at(folder / "storage" / "exact", rows)
    assert len(one.rows) == len(rows) == 2
    for alone, together in zip(one.rows, rows, strict=True):
        for key in ("train_loss", "objective", "losses", "dev", "selected", "lambda"):
            wanted = pytest.approx(numbers(alone[key]), rel=1e-7, nan_ok=True)
            assert numbers(together[key]) == wanted, key
    assert two.predictions["utterance_id"].tolist() == one.predictions["utterance_id"].tolist()
    assert two.predictions["prediction"].tolist() == one.predictions["prediction"].tolist()
    scores = [run.predictions.filter(like="logp_").to_numpy() for run in (one, two)]
    assert np.abs(scores[0] - scores[1]).max() < 1e-5


def test_workers_hold_the_same_parameters_to_the_bit_and_the_first_alone_reports(seen):
    for name in ("exact", "whole", "resumed", "resumed again"):
        assert torch.equal(seen[0][name][2], seen[1][name][2]), name
        assert seen[0][name][0] and not seen[1][name][0]


def test_each_utterance_is_trained_on_by_one_worker_once_an_epoch(seen):
    for name, epochs in (("exact", 2), ("whole", 3)):
        shares = [worker[name][3] for worker in seen]
        assert sorted(shares[0] + shares[1]) == sorted(list(range(36)) * epochs)
        assert abs(len(shares[0]) - len(shares[1])) <= 4 * epochs  # one a step


def test_a_failure_is_the_same_on_all_workers_and_the_next_run_goes_on(seen):
    reasons = {worker["fails"][1] for worker in seen}
    assert len(reasons) == 1 and "not finite" in reasons.pop()
    assert not seen[0]["fails"][0] and len(seen[0]["whole"][0]) == 3


def test_a_group_of_workers_resumes_bit_for_bit_with_dropout_and_several_passes(folder, seen):
    whole = Trained.at(folder / "storage" / "whole", seen[0]["whole"][0])
    rows = seen[0]["resumed"][0] + seen[0]["resumed again"][0]
    resumed = Trained.at(folder / "storage" / "resumed", rows)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert resumed.results == whole.results and resumed.files == whole.files
    for worker in seen:
        assert torch.equal(worker["resumed again"][2], worker["whole"][2])
