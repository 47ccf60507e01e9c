"""A training process dies in the middle of an epoch: its trial goes on from its last epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_sweep import RealSweep, kill, options, rows_of

# Several Ray sessions in one fixture; `RealSweep` has its own, shorter limits.
pytestmark = pytest.mark.timeout(600)
EPOCHS = 4
SETTINGS = options(
    plugin="slow_steps.py",
    settings=("train.batch=8", "train.patience=9", "sweep.trials=2", "sweep.slots=1"),
    epochs=EPOCHS,
)


class Outcome:
    """What a sweep left, and what it was doing when its worker was killed."""

    def __init__(self, sweep: RealSweep, *, status: int, last: dict) -> None:
        self.status, self.said, self.out = status, sweep.said, sweep.out
        self.rows, self.left_over = sweep.rows(), sweep.left_over()
        self.processes = len(sweep.trainers)
        self.victim, self.epoch = last["trial_id"], last["epoch"]
        (self.other,) = {"t0000", "t0001"} - {self.victim}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """A sweep of two equal trials on one slot; the first loses its process after an epoch."""
    folder: Path = tmp_path_factory.mktemp("worker-killed")
    (folder / "slow").touch()
    with RealSweep(folder, "pareto.py", "--smoke-test", "--out", "out", *SETTINGS) as sweep:
        sweep.until(lambda: any(row["epoch"] >= 1 for row in sweep.rows()))
        kill(*sweep.workers())
        # An epoch may have been committed meanwhile; now nobody commits.
        last = sweep.rows()[-1]
        (folder / "slow").unlink()
        yield Outcome(sweep, status=sweep.ends(), last=last)


def test_the_sweep_ends_well_although_a_worker_was_killed(outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.said
    assert (outcome.out / "DONE").exists()
    assert {row["trial_id"] for row in outcome.rows} == {"t0000", "t0001"}


def test_the_killed_trial_goes_on_after_its_last_committed_epoch(outcome: Outcome) -> None:
    assert 1 <= outcome.epoch < EPOCHS
    attempts = {row["epoch"]: row["attempt"] for row in rows_of(outcome.rows, outcome.victim)}
    assert attempts == {e: 1 if e <= outcome.epoch else 2 for e in range(1, EPOCHS + 1)}


def test_no_epoch_is_committed_twice_and_none_is_missing(outcome: Outcome) -> None:
    for trial_id in (outcome.victim, outcome.other):
        trained = rows_of(outcome.rows, trial_id)
        assert [row["epoch"] for row in trained] == list(range(1, EPOCHS + 1))
        assert [row["status"] for row in trained] == ["running"] * (EPOCHS - 1) + ["finished"]


def test_the_other_trial_is_not_charged_with_an_attempt(outcome: Outcome) -> None:
    assert {row["attempt"] for row in rows_of(outcome.rows, outcome.other)} == {1}


def test_one_new_process_takes_the_place_of_the_killed_one(outcome: Outcome) -> None:
    assert outcome.processes == 2
    assert outcome.left_over == []


def test_the_killed_trial_is_bit_equal_to_one_that_ran_through(outcome: Outcome) -> None:
    broken, whole = (rows_of(outcome.rows, t) for t in (outcome.victim, outcome.other))
    for name in ("train_loss", "objective", "losses", "dev", "selected"):
        assert [row[name] for row in broken] == [row[name] for row in whole], name
