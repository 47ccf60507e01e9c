"""A search on a trunk whose driver and whose worker are killed while a branch trains."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from real_sweep import RealSweep, kill, options

from ermgap.records import Records

EPOCHS = 4
TIMING = {"time", "seconds", "train_seconds", "eval_seconds", "utterances_per_second"}
TIMING |= {"peak_memory_mb", "slot", "attempt"}
SETTINGS = options(
    plugin="slow_steps.py",
    settings=("train.batch=8", "train.patience=9", "sweep.trials=4", "sweep.slots=1",
              "sweep.trunks=1", "sweep.erm_share=0.1", "sweep.dial=false"),
    epochs=EPOCHS,
)  # fmt: skip


def sweep(folder: Path, *arguments: str) -> RealSweep:
    return RealSweep(folder, "pareto.py", *arguments)


def trials(folder: Path) -> dict:
    return {trial.trial_id: trial for trial in Records.open(folder / "out").trials()}


def rows(folder: Path) -> dict:
    """Every committed epoch by trial, without what depends on the clock."""
    return {
        (row["trial_id"], row["epoch"]): {k: v for k, v in row.items() if k not in TIMING}
        for trial in trials(folder).values()
        for row in trial.rows
        if row["trial_id"] == trial.trial_id and "dev" in row
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lost", [False, True], ids=["trunk kept", "trunk's checkpoints lost"])
def test_what_is_resumed_equals_what_was_left_in_peace(tmp_path, lost):
    peaceful, killed = tmp_path / "peaceful", tmp_path / "killed"
    for folder in (peaceful, killed):
        folder.mkdir()
    with sweep(peaceful, "--smoke-test", "--out", "out", *SETTINGS) as run:
        assert run.ends() == 0, run.said
    branches = [name for name, trial in trials(peaceful).items() if trial.branch_from]
    assert branches and "branches:" in run.said
    assert not (peaceful / "out" / "checkpoints").exists() or not any(
        (peaceful / "out" / "checkpoints").iterdir()
    )

    first = branches[0]
    begins = trials(peaceful)[first].branch_from["epoch"] + 1
    with sweep(killed, "--smoke-test", "--out", "out", *SETTINGS) as run:
        run.until(lambda: run.last_epoch("t0001") == EPOCHS)
        (killed / "slow").touch()
        run.until(lambda: run.last_epoch(first) >= begins or lost and first in trials(killed))
        run.crash()
    if lost:
        shutil.rmtree(killed / "out" / "checkpoints" / "t0000")
    with sweep(killed, "--resume", "out") as run:
        run.until(lambda: run.workers() and run.last_epoch(first) >= 1)
        kill(*run.workers())
        (killed / "slow").unlink()
        assert run.ends() == 0, run.said

    ours, theirs = rows(killed), rows(peaceful)
    assert ours.keys() >= theirs.keys()
    for key, row in theirs.items():
        branch_from = ours[key].pop("branch_from")
        assert lost or branch_from == row["branch_from"]
        assert ours[key] == {k: v for k, v in row.items() if k != "branch_from"}, key
    assert all(trial.status == "finished" for trial in trials(killed).values())
