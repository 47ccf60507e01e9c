"""A branch equals, to the bit, the same configuration trained from its start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_run
import torch
from tiny_run import Trained, job

from ermgap.config import losses
from ermgap.distributed import World
from ermgap.objective import SCHEDULES
from ermgap.records import Storage
from ermgap.training.context import TrainingContext
from sweeps.search.branches import key, silent_epochs

EPOCHS = 5
KINDS = {
    "step, running means": {"objective.schedule": "step", "objective.estimator": "ema"},
    "step, worse side": {
        "objective.schedule": "step", "objective.estimator": "ema", "objective.sides": "worse",
    },
    "linear, begins within an epoch": {
        "objective.schedule": "linear", "objective.start": 0.5, "objective.ramp": 0.3,
    },
    "V-REx": {"objective.loss": "vrex", "objective.schedule": "cosine"},
    "unbiased, several passes": {
        "objective.schedule": "step", "objective.estimator": "unbiased", "objective.p": 2.0,
        "train.micro_batch": 4,
    },
    "last epoch": {"objective.schedule": "step", "train.select": "last"},
    "predictions of every epoch": {"objective.schedule": "step", "train.keep_epochs": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    speech = tiny_run.speech("float32")
    table = tiny_run.tones(tmp_path_factory.mktemp("tones"))
    splits = tiny_run.splits(table, speech, cache=tmp_path_factory.mktemp("features"))
    return speech, TrainingContext(*splits, Storage(""))


def changes_of(kind: str) -> dict:
    base = {"train.epochs": EPOCHS, "objective.start": 0.4, "adapter.dropout": 0.1}
    return base | KINDS[kind]


def erm_of(changes: dict) -> dict:
    """The ERM trial that is equal until the schedule begins."""
    return changes | {"objective.loss": "erm", "objective.schedule": "constant"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_equals_the_trial_trained_from_its_start(room, tmp_path, kind):
    changes = changes_of(kind)
    whole = Trained(room, job(changes, trial_id="t0001"), tmp_path / "whole")
    keep = silent_epochs(job(changes).config)
    assert keep == 2 and len(whole.rows) == EPOCHS
    trunk = Trained(room, job(erm_of(changes), keep=keep), tmp_path / "sweep")
    assert key(trunk.job.config) == key(whole.job.config)
    origin = {"trial": "t0000", "epoch": keep}
    spec = job(changes, trial_id="t0001", branch_from=origin)
    branch = Trained(room, spec, tmp_path / "sweep")
    assert [row["epoch"] for row in branch.rows] == [3, 4, 5]
    assert all(row.pop("branch_from") == origin for row in branch.rows)
    assert all(row.pop("branch_from") is None for row in whole.rows)
    assert branch.results == whole.results[keep:]
    assert branch.files == whole.files
    assert whole.rows[-1]["lambda"] > 0 and whole.rows[0]["lambda"] == 0
    rungs = [tmp_path / name / "predictions" / "t0001.rungs.parquet" for name in ("whole", "sweep")]
    if kind == "predictions of every epoch":
        assert rungs[0].read_bytes() == rungs[1].read_bytes()


def test_where_the_best_epoch_is_the_trunk_s_its_files_are_the_branch_s(room, tmp_path):
    """A penalty that ruins the model leaves the trunk's epoch the selected one."""
    changes = changes_of("step, running means") | {
        "objective.lambda_max": 1e6, "train.select": "w_f1", "train.clip_norm": 1e9,
    }  # fmt: skip
    whole = Trained(room, job(changes, trial_id="t0001"), tmp_path / "whole")
    assert whole.rows[-1]["selected"]["epoch"] <= 2, "nothing was ruined"
    Trained(room, job(erm_of(changes), keep=2), tmp_path / "sweep")
    origin = {"trial": "t0000", "epoch": 2}
    spec = job(changes, trial_id="t0001", branch_from=origin)
    branch = Trained(room, spec, tmp_path / "sweep")
    assert branch.rows[-1]["selected"] == whole.rows[-1]["selected"]
    assert branch.files == whole.files


def test_a_branch_that_is_killed_goes_on_from_its_own_epoch(room, tmp_path):
    changes = changes_of("step, worse side")
    whole = Trained(room, job(changes, trial_id="t0001"), tmp_path / "whole")
    Trained(room, job(erm_of(changes), keep=2), tmp_path / "sweep")
    origin = {"trial": "t0000", "epoch": 2}
    spec = job(changes, trial_id="t0001", branch_from=origin)
    Trained(room, spec, tmp_path / "sweep", until=4)
    shutil.rmtree(tmp_path / "sweep" / "checkpoints" / "t0000")  # not needed any more
    again = job(changes, trial_id="t0001", epoch=4, branch_from=origin)
    resumed = Trained(room, again, tmp_path / "sweep")
    for run in (resumed, whole):
        for row in run.rows:
            row.pop("branch_from")
    assert resumed.results == whole.results[4:] and resumed.files == whole.files


def test_a_trunk_keeps_the_checkpoints_up_to_the_last_branch_and_no_others(room, tmp_path):
    Trained(room, job(erm_of(changes_of("V-REx")), keep=2), tmp_path)
    stored = sorted(path.name for path in (tmp_path / "checkpoints" / "t0000").iterdir())
    assert stored == [f"epoch-000{epoch}.pt" for epoch in (1, 2, 4, 5)]


@pytest.mark.parametrize("damage", ["missing", "half"])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_lost_checkpoint_of_the_trunk_is_said_and_nothing_is_trained(
    room, tmp_path, damage, epoch
):
    """Of the branching epoch, or of the selected one before it."""
    changes = changes_of("step, running means") | {"train.lr": 1e-9}  # epoch 1 stays the best
    Trained(room, job(erm_of(changes), keep=2), tmp_path)
    path = tmp_path / "checkpoints" / "t0000" / f"epoch-{epoch:04d}.pt"
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:999])
    lost = []
    spec = job(changes, trial_id="t0001", branch_from={"trial": "t0000", "epoch": 2})
    run = Trained(room, spec, tmp_path, checkpoint_lost=lambda spec, why: lost.append(why))
    assert run.rows == [] and len(lost) == 1 and f"epoch-{epoch:04d}.pt" in lost[0]


def work(rank: int, size: int, folder: str) -> None:
    """A worker: the trial from its start, the trunk, and the branch."""
    folder = Path(folder)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size
    )
    table, world = tiny_run.tones(folder / f"tones-{rank}"), World(rank, size)
    speech = tiny_run.speech("float32")
    splits = tiny_run.splits(table, speech, cache=folder / f"cache-{rank}")
    room = speech, TrainingContext(*splits, Storage(""))
    changes = changes_of("step, worse side")
    branch = job(changes, trial_id="t0001", branch_from={"trial": "t0000", "epoch": 2})
    runs = [
        Trained(room, job(changes, trial_id="t0001"), folder / "whole", world=world),
        Trained(room, job(erm_of(changes), keep=2), folder / "sweep", world=world),
        Trained(room, branch, folder / "sweep", world=world),
    ]
    parameters = torch.cat([p.detach().flatten() for _, p in speech.trainable()])
    torch.save(([run.rows for run in runs], parameters), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_so_it_is_with_two_workers(tmp_path):
    tiny_run.in_processes(work, 2, str(tmp_path))
    (rows, ours), (_, theirs) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(ours, theirs)
    whole, branch = (
        Trained.at(tmp_path / name, made) for name, made in (("whole", rows[0]), ("sweep", rows[2]))
    )
    for run in (whole, branch):
        run.job = job(trial_id="t0001")
        for row in run.rows:
            row.pop("branch_from")
    assert branch.results == whole.results[2:] and branch.files == whole.files


@pytest.mark.parametrize("schedule", losses.SCHEDULES)
@pytest.mark.parametrize("start", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_no_step_of_a_silent_epoch_has_a_fairness_weight(schedule, start):
    for epochs in (1, 3, 6, 10):
        changes = {"objective.schedule": schedule, "objective.start": start}
        config = job(changes | {"train.epochs": epochs, "objective.lambda_0": 1.0}).config
        silent, weight = silent_epochs(config), SCHEDULES[schedule](config.objective)
        assert 0 <= silent < epochs
        for per_epoch in (1, 7, 1000):
            steps = range(silent * per_epoch)
            assert not any(weight.value(step / (epochs * per_epoch)) for step in steps)
        if "start" in losses.SCHEDULES[schedule].hyperparameters:
            assert silent == min(int(start * epochs + 1e-9), epochs - 1)


def test_only_what_has_an_influence_before_the_branch_is_in_the_key():
    base = job({"objective.schedule": "step"}).config
    equal = {"objective.loss": "erm", "objective.p": 1.0, "objective.start": 0.5,
             "objective.lambda_max": 0.1, "sweep.trials": 3, "objective.dro_eta": 0.5}  # fmt: skip
    assert key(base) == key(base.replace(equal))
    for changed, value in {
        "train.seed": 9, "train.lr": 1.0, "train.epochs": 9, "train.batch": 8, "adapter.r": 5,
        "adapter.dropout": 0.3, "data.fold": 1, "backbone.layers": 1, "objective.ema": 0.5,
        "objective.loss_over": "answer", "train.warmup": 0.3,
    }.items():  # fmt: skip
        assert key(base) != key(base.replace({changed: value})), changed


def test_a_branch_begins_from_a_trunk_in_a_bucket(room, tmp_path, bucket):
    changes = changes_of("step, worse side") | {"train.keep_epochs": True}
    whole = Trained(room, job(changes, trial_id="t0001"), tmp_path)
    Trained(room, job(erm_of(changes), keep=2), bucket.uri)
    spec = job(changes, trial_id="t0001", branch_from={"trial": "t0000", "epoch": 2})
    branch = Trained(room, spec, bucket.uri)
    for name in ("predictions/t0001.parquet", "predictions/t0001.rungs.parquet"):
        assert Storage(bucket.uri).fetch(name).read_bytes() == (tmp_path / name).read_bytes()
    for run in (whole, branch):
        for row in run.rows:
            row.pop("branch_from")
    assert branch.results == whole.results[2:]
