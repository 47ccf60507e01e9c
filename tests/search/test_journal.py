"""The journal that optuna-dashboard reads: the records as a study, live and after a kill."""

from __future__ import annotations

import pytest
from broker_story import ERM, FAIR, create, on, row, states, study, take

from analysis.front import front
from ermgap.config import from_dict
from ermgap.records import Records
from sweeps.recording.events import Events
from sweeps.scheduler.broker import Broker
from sweeps.search import journal


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Events, "_ended", lambda *_: None)


async def train(
    broker: Broker, trial_id: str, hyperparameters: dict, *, acc: float, gap: float = 0.1
):
    await broker.offer(trial_id, hyperparameters)
    job = await take(broker, "slot")
    last = job["config"]["train"]["epochs"]
    for epoch in range(1, last + 1):
        made = row(job, epoch, acc=acc, w_f1=acc, max_gap=gap, last=epoch == last)
        await broker.report("slot", made)


def test_it_shows_what_runs_and_what_has_ended_while_the_sweep_goes_on(tmp_path):
    folder = create(tmp_path / "sweep")

    async def story(broker: Broker) -> None:
        await train(broker, "t0000", ERM, acc=0.6)
        await broker.offer("t0001", FAIR)
        await broker.offer("t0002", {"loss": "minmaxgap", "p": 0.5})  # refused
        assert states(folder) == {"t0000": "COMPLETE", "t0001": "RUNNING", "t0002": "FAIL"}

    on(folder, story)
    ended = study(folder).get_trials()[0]
    assert ended.values == [0.6, 0.1] and ended.params["loss"] == "erm"
    assert study(folder).metric_names == ["acc", "max_gap"]


def test_a_new_session_leaves_nothing_running_of_one_that_was_killed(tmp_path):
    folder = create(tmp_path / "sweep")

    async def story(broker: Broker) -> None:
        await train(broker, "t0000", ERM, acc=0.6)
        await broker.offer("t0001", FAIR)

    on(folder, story)
    with open(folder / "optuna.journal", "ab") as file:
        file.write(b'{"op_code":6,"worker_id":"x","trial')  # half a line

    async def again(broker: Broker) -> None:
        assert states(folder) == {"t0000": "COMPLETE", "t0001": "WAITING"}
        await train(broker, "t0001", FAIR, acc=0.5)

    on(folder, again)
    assert states(folder) == {"t0000": "COMPLETE", "t0001": "COMPLETE"}


def test_its_front_is_that_of_the_report_degenerate_and_outside_points_apart(tmp_path):
    folder = create(tmp_path / "sweep", constraints={"w_f1": 0.45}, floor=0.3)
    told = [(0.6, 0.2), (0.5, 0.1), (0.55, 0.3), (0.2, 0.0), (0.4, 0.01)]

    async def story(broker: Broker) -> None:
        for number, (acc, gap) in enumerate(told):
            point = ERM if number == 0 else FAIR
            await train(broker, f"t{number:04d}", point, acc=acc, gap=gap)

    on(folder, story)
    records = Records.open(folder)
    journal.write(records, from_dict(records.sweep["config"]))
    info = front.info(records)
    kinds = {point.trial_id: point.kind for point in info.points}
    assert kinds == {"t0000": "front", "t0001": "front", "t0002": "dominated",
                     "t0003": "degenerate", "t0004": "outside"}  # fmt: skip
    shown = {trial.user_attrs["trial_id"] for trial in study(folder).best_trials}
    assert shown == {point.trial_id for point in info.front}


def test_a_value_outside_the_searched_range_is_shown_as_it_is(tmp_path):
    folder = create(tmp_path / "sweep", space={"lambda_max": [0.1, 1.0], "p": [1.0]})

    async def story(broker: Broker) -> None:
        await train(broker, "t0000", FAIR | {"lambda_max": 10.0, "p": 2.0}, acc=0.6)

    on(folder, story)
    (trial,) = study(folder).get_trials()
    assert trial.params["lambda_max"] == 10.0 and "p" not in trial.params
    assert trial.user_attrs["configuration"]["p"] == 2.0


def test_a_journal_that_cannot_be_written_costs_no_trial(tmp_path, caplog):
    folder = create(tmp_path / "sweep")
    (folder / "optuna.journal").mkdir()

    async def story(broker: Broker) -> None:
        await train(broker, "t0000", ERM, acc=0.6)

    on(folder, story)
    assert [trial.status for trial in Records.open(folder).trials()] == ["finished"]
    assert "is not written any further" in caplog.text
