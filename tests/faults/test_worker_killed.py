"""A training process dies in the middle of an epoch: its trial goes on from its last epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_sweep import ROOT, RealSweep, kill, rows_of

EPOCHS = 4
SETTINGS = (
    f"plugins=[{ROOT}/tests/plugins/slow_steps.py]",
    f"train.epochs={EPOCHS}",
    "train.batch=8",
    "train.patience=9",
    "sweep.trials=2",
    "sweep.slots=1",
)


class Outcome:
    """What the sweep left, and what it was doing when its worker was killed."""

    def __init__(self, sweep: RealSweep, status: int, victim: dict) -> None:
        self.status, self.said, self.out = status, sweep.said, sweep.out
        self.rows, self.trainers = sweep.rows(), len(sweep.trainers)
        self.trial_id, self.epoch = victim["trial_id"], victim["epoch"]
        self.left_over = sweep.left_over()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """A sweep of two trials on one slot, of which the first loses its process."""
    folder = tmp_path_factory.mktemp("worker-killed")
    (folder / "slow").touch()
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    with RealSweep(folder, "pareto.py", "--smoke-test", "--out", "out", *settings) as sweep:
        sweep.until(lambda: any(row["epoch"] >= 1 for row in sweep.rows()))
        kill(*sweep.workers())
        # An epoch may have been committed in the meantime; now nobody commits.
        victim = sweep.rows()[-1]
        (folder / "slow").unlink()
        yield Outcome(sweep, sweep.ends(), victim)


def test_the_sweep_ends_well_although_a_worker_was_killed(outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.said
    assert (outcome.out / "DONE").exists()
    assert {row["trial_id"] for row in outcome.rows} == {"t0000", "t0001"}


def test_the_killed_trial_goes_on_after_its_last_committed_epoch(outcome: Outcome) -> None:
    trained = rows_of(outcome.rows, outcome.trial_id)
    assert 1 <= outcome.epoch < EPOCHS
    attempts = {row["epoch"]: row["attempt"] for row in trained}
    assert attempts == {e: 1 if e <= outcome.epoch else 2 for e in range(1, EPOCHS + 1)}


def test_no_epoch_is_committed_twice_and_none_is_missing(outcome: Outcome) -> None:
    for trial_id in ("t0000", "t0001"):
        trained = rows_of(outcome.rows, trial_id)
        assert [row["epoch"] for row in trained] == list(range(1, EPOCHS + 1))
        assert [row["status"] for row in trained] == ["running"] * (EPOCHS - 1) + ["finished"]


def test_the_other_trial_is_not_charged_with_an_attempt(outcome: Outcome) -> None:
    (other,) = {"t0000", "t0001"} - {outcome.trial_id}
    assert {row["attempt"] for row in rows_of(outcome.rows, other)} == {1}


def test_one_new_group_of_workers_replaces_the_killed_one(outcome: Outcome) -> None:
    assert outcome.trainers == 2
    assert outcome.left_over == []


def test_a_resumed_epoch_equals_the_epoch_of_a_run_that_was_never_killed(outcome: Outcome) -> None:
    # At the same seed and settings the dev metrics of an epoch are a function of the epoch alone.
    trained = rows_of(outcome.rows, outcome.trial_id)
    assert [row["lambda"] for row in trained] == sorted(row["lambda"] for row in trained)
    assert all(row["selected"]["epoch"] <= row["epoch"] for row in trained)
