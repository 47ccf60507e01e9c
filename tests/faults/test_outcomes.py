"""One configuration goes wrong, the sweep does not: not finite fails alone, an exception twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from real_sweep import Ended, RealSweep, options, rows_of

# Several Ray sessions in one fixture; `RealSweep` has its own, shorter limits.
pytestmark = pytest.mark.timeout(600)
SETTINGS = options(
    plugin="outcomes.py",
    settings=("sweep.trials=3", "sweep.slots=1", "sweep.space.loss=[fine]", "sweep.erm_share=0"),
    epochs=3,
)


class Outcome(Ended):
    """What a sweep left in which two of three configurations go wrong in their second epoch."""

    def __init__(self, sweep: RealSweep, *, status: int) -> None:
        super().__init__(sweep, status=status)
        notes = (sweep.out.parent / "processes").read_text().splitlines()
        self.runs = [(loss, int(pid)) for pid, loss in map(str.split, notes)]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("outcomes")
    with RealSweep(folder, "pareto.py", "--smoke-test", "--out", "out", *SETTINGS) as sweep:
        yield Outcome(sweep, status=sweep.ends())


def test_a_sweep_with_failed_trials_ends_well(outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.said
    assert (outcome.out / "DONE").exists()
    assert {loss: trial.status for loss, trial in outcome.trials.items()} == {
        "erm": "failed",
        "minmaxgap": "failed",
        "fine": "finished",
    }


def test_a_loss_that_is_not_finite_fails_its_trial_at_once_with_the_reason(
    outcome: Outcome,
) -> None:
    trial = outcome.trials["erm"]
    assert "not finite in epoch 2" in trial.reason
    assert [(row["epoch"], row["attempt"]) for row in rows_of(outcome.rows, trial.trial_id)] == [
        (1, 1)
    ]
    assert [loss for loss, _ in outcome.runs].count("erm") == 1


def test_an_exception_is_retried_once_and_its_words_are_recorded(outcome: Outcome) -> None:
    trial = outcome.trials["minmaxgap"]
    assert trial.reason.startswith("ArithmeticError: the second epoch is cursed")
    assert "2 attempts" in trial.reason
    assert [loss for loss, _ in outcome.runs].count("minmaxgap") == 2
    assert [row["epoch"] for row in rows_of(outcome.rows, trial.trial_id)] == [1]


def test_the_next_trial_runs_in_the_same_process_only_after_an_agreed_failure(
    outcome: Outcome,
) -> None:
    for (loss, pid), (_, following) in zip(outcome.runs, outcome.runs[1:], strict=False):
        assert (pid == following) == (loss != "minmaxgap"), outcome.runs


def test_a_person_is_told_why_and_sees_no_traceback(outcome: Outcome) -> None:
    assert "the second epoch is cursed" in outcome.said
    assert "not finite in epoch 2" in outcome.said
    assert "Traceback" not in outcome.said


def test_failed_trials_are_on_no_front(outcome: Outcome) -> None:
    import pandas as pd

    front = pd.read_parquet(outcome.out / "front.parquet")
    assert list(front["trial_id"]) == [outcome.trials["fine"].trial_id]


def test_nothing_is_left_running_after_failures(outcome: Outcome) -> None:
    assert outcome.left_over == []
