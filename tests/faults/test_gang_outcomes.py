"""A gang of three in which one is not finite and one raises: the third finishes, unharmed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from real_sweep import Ended, RealSweep, options, rows_of

# Several Ray sessions in one fixture; `RealSweep` has its own, shorter limits.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SPACE = ("sweep.space.loss=[fine]", "sweep.erm_share=0")
SETTINGS = options(
    plugin="outcomes.py",
    settings=("sweep.trials=3", "sweep.slots=1", "sweep.gang=3", *SPACE),
    epochs=3,
)


class Outcome(Ended):
    """What a sweep left whose only gang breaks in its second epoch."""

    def told(self, loss: str, name: str) -> list:
        """A value of each epoch's row."""
        return [row[name] for row in rows_of(self.rows, self.trials[loss].trial_id)]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("gang")
    with RealSweep(folder, "pareto.py", "--smoke-test", "--out", "out", *SETTINGS) as sweep:
        yield Outcome(sweep, status=sweep.ends())


def test_the_first_epoch_is_trained_together_and_what_is_left_alone(outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.said
    assert [outcome.told(loss, "gang")[0] for loss in ("erm", "minmaxgap", "fine")] == [3, 3, 3]
    assert outcome.told("fine", "gang") == [3, 1, 1]


def test_the_one_that_is_not_finite_fails_and_does_not_take_the_group_down(
    outcome: Outcome,
) -> None:
    assert outcome.trials["erm"].status == "failed"
    assert "not finite in epoch 2" in outcome.trials["erm"].reason


def test_the_one_that_raises_fails_after_its_own_attempts(outcome: Outcome) -> None:
    trial = outcome.trials["minmaxgap"]
    assert trial.status == "failed"
    assert trial.reason.startswith("ArithmeticError: the second epoch is cursed")
    assert trial.attempt == 3  # with the gang, and two alone


def test_the_innocent_one_finishes_from_its_last_epoch(outcome: Outcome) -> None:
    assert outcome.trials["fine"].status == "finished"
    assert outcome.told("fine", "epoch") == [1, 2, 3]
    assert outcome.told("fine", "attempt") == [1, 2, 2]


def test_nothing_is_left_running(outcome: Outcome) -> None:
    assert outcome.left_over == []
