"""A killed driver, a killed worker, Ctrl-C: nothing is lost and nothing runs twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_sweep import RealSweep, kill, options, rows_of

from ermgap.records import Records, Trial

# Several Ray sessions in one fixture; `RealSweep` has its own, shorter limits.
pytestmark = pytest.mark.timeout(600)
EPOCHS = 4
SETTINGS = options(
    plugin="slow_steps.py",
    settings=("train.batch=8", "train.patience=9", "sweep.trials=3", "sweep.slots=1"),
    epochs=EPOCHS,
)


class Story:
    """A folder as it was when the first session broke off, and after the sessions that resumed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.said: list[str] = []
        self.statuses: list[int] = []
        self.files: list[bytes] = []
        self.trials: list[dict[str, Trial]] = []
        self.done: list[bool] = []
        self.left_over: list[str] = []
        self.processes: list[int] = []  # that trained
        self.worker_killed_after = 0  # the epoch of t0001 that was committed last

    def start(self, *arguments: str) -> RealSweep:
        return RealSweep(self.folder, "pareto.py", *arguments)

    def keep(self, sweep: RealSweep) -> None:
        """Note how a session ended."""
        self.statuses.append(sweep.process.wait())
        self.said.append(sweep.said)
        self.files.append((self.out / "trials.jsonl").read_bytes())
        self.trials.append({t.trial_id: t for t in Records.open(self.out).trials()})
        self.done.append((self.out / "DONE").exists())
        self.left_over += sweep.left_over()
        self.processes.append(len(sweep.trainers))

    def resume(self, *arguments: str) -> None:
        """A session that is left in peace."""
        with self.start("--resume", "out", *arguments) as sweep:
            sweep.ends()
            self.keep(sweep)


def begin(story: Story, *, ended: int) -> RealSweep:
    """A session in its second epoch of a trial, after so many trials that have ended."""
    (story.folder / "slow").touch()
    sweep = story.start("--smoke-test", "--out", "out", *SETTINGS)

    def far_enough() -> bool:
        rows = sweep.rows()
        return (
            sum(row["status"] == "finished" for row in rows) == ended
            and bool(rows)
            and rows[-1]["status"] == "running"
            and rows[-1]["epoch"] >= 1
        )

    sweep.until(far_enough)
    return sweep


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Killed in the second trial, resumed with one more trial than before; then its worker dies."""
    story = Story(tmp_path_factory.mktemp("driver-killed"))
    with begin(story, ended=1) as sweep:
        sweep.crash()
        story.keep(sweep)
    before = unfinished(story.trials[0])
    with story.start("--resume", "out", "--trials", "4") as sweep:
        sweep.until(lambda: sweep.last_epoch(before.trial_id) > before.epoch)
        kill(*sweep.workers())
        # An epoch may have been committed meanwhile; now nobody commits.
        story.worker_killed_after = sweep.last_epoch(before.trial_id)
        (story.folder / "slow").unlink()
        sweep.ends()
        story.keep(sweep)
    yield story


def unfinished(trials: dict[str, Trial]) -> Trial:
    (trial,) = [t for t in trials.values() if not t.ended and t.epoch]
    return trial


def assert_whole(trials: dict[str, Trial], *, count: int) -> None:
    """No zombie: so many trials, ids without a hole, one final status each, every epoch once."""
    assert sorted(trials) == [f"t{n:04d}" for n in range(count)]
    for trial in trials.values():
        trained = [row for row in trial.rows if "dev" in row]
        assert [row["epoch"] for row in trained] == list(range(1, EPOCHS + 1))
        assert [row["status"] for row in trained] == ["running"] * (EPOCHS - 1) + ["finished"]


def attempts(story: Story, trial_id: str) -> dict[int, int]:
    """The attempt in which each epoch of a trial was committed, at the end."""
    rows = rows_of(story.trials[-1][trial_id].rows, trial_id)
    return {row["epoch"]: row["attempt"] for row in rows}


def test_after_the_kill_one_trial_has_ended_and_one_is_unfinished(killed: Story) -> None:
    assert killed.statuses[0] == -9 and not killed.done[0]
    assert sum(trial.ended for trial in killed.trials[0].values()) == 1
    assert 1 <= unfinished(killed.trials[0]).epoch < EPOCHS


def test_the_resumed_sweep_ends_well_with_every_trial_once(killed: Story) -> None:
    assert killed.statuses[1] == 0, killed.said[1]
    assert killed.done[1]
    assert "1 of 4 trials have ended" in killed.said[1]
    assert_whole(killed.trials[1], count=4)


def test_committed_rows_are_kept_to_the_byte(killed: Story) -> None:
    assert killed.files[1].startswith(killed.files[0])


def test_a_finished_trial_is_not_run_again(killed: Story) -> None:
    (ended,) = [t.trial_id for t in killed.trials[0].values() if t.ended]
    added = killed.files[1][len(killed.files[0]) :]
    assert ended not in [json.loads(line)["trial_id"] for line in added.splitlines()]


def test_the_unfinished_trial_goes_on_after_its_last_committed_epoch(killed: Story) -> None:
    before = unfinished(killed.trials[0])
    after = killed.trials[1][before.trial_id]
    assert after.hyperparameters == before.hyperparameters
    written = [line for line in killed.files[1].splitlines() if before.trial_id.encode() in line]
    assert len(written) == EPOCHS + 1  # its offer, and each epoch once


def test_a_worker_that_is_killed_costs_its_trial_an_attempt_and_no_committed_epoch(
    killed: Story,
) -> None:
    before, last = unfinished(killed.trials[0]), killed.worker_killed_after
    assert before.epoch < last < EPOCHS
    expected = {epoch: 1 if epoch <= last else 2 for epoch in range(1, EPOCHS + 1)}
    assert attempts(killed, before.trial_id) == expected  # the driver's death cost it none


def test_the_other_trials_are_not_charged_with_an_attempt(killed: Story) -> None:
    for trial_id in killed.trials[1].keys() - {unfinished(killed.trials[0]).trial_id}:
        assert set(attempts(killed, trial_id).values()) == {1}


def test_one_new_process_takes_the_place_of_the_killed_worker(killed: Story) -> None:
    assert killed.processes == [1, 2]


def test_the_broken_trial_is_bit_equal_to_the_one_that_ran_through(killed: Story) -> None:
    names = ("train_loss", "objective", "losses", "dev", "selected")
    first, second = (
        [{name: row[name] for name in names} for row in rows_of(killed.trials[1][t].rows, t)]
        for t in ("t0000", "t0001")
    )
    assert first == second


def test_no_process_and_no_scratch_of_either_session_is_left(killed: Story) -> None:
    assert killed.left_over == []
    assert not [path.name for path in killed.out.iterdir() if path.name.startswith(".")]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Ctrl-C in the first trial; resumed to its end; resumed with one more trial."""
    story = Story(tmp_path_factory.mktemp("stopped"))
    with begin(story, ended=0) as sweep:
        sweep.interrupt()
        sweep.ends()
        story.keep(sweep)
    (story.folder / "slow").unlink()
    story.resume()
    story.resume("--trials", "4")
    yield story


@pytest.mark.slow
def test_ctrl_c_ends_after_the_epoch_and_prints_how_to_go_on(stopped: Story) -> None:
    assert stopped.statuses[0] == 130, stopped.said[0]
    assert "--resume out" in stopped.said[0]
    assert "Traceback" not in stopped.said[0]
    assert not stopped.done[0]
    assert 1 <= unfinished(stopped.trials[0]).epoch < EPOCHS


@pytest.mark.slow
def test_a_stopped_sweep_is_completed_by_resume(stopped: Story) -> None:
    assert stopped.statuses[1] == 0 and stopped.done[1], stopped.said[1]
    assert stopped.files[1].startswith(stopped.files[0])
    assert_whole(stopped.trials[1], count=3)


@pytest.mark.slow
def test_a_finished_sweep_is_extended_by_more_trials(stopped: Story) -> None:
    assert stopped.statuses[2] == 0 and stopped.done[2], stopped.said[2]
    added = stopped.files[2][len(stopped.files[1]) :]
    assert stopped.files[2].startswith(stopped.files[1])
    assert all(b'"t0003"' in line for line in added.splitlines())
    assert_whole(stopped.trials[2], count=4)
    assert stopped.left_over == []
