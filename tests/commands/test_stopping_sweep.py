"""Early stopping inside a sweep: the broker's answer, what a restart knows, what Optuna is told."""

from __future__ import annotations

import json
import warnings

import pytest
from broker_story import ERM, FAIR, SOON, create, on, row, rows, take, trial
from optuna.trial import TrialState

from ermgap.config import Config, from_dict
from ermgap.records import Records
from sweeps.recording.events import Events
from sweeps.scheduler.broker import Broker
from sweeps.search.searcher import RecordsSearcher
from sweeps.search.stopping import curve, write_hindsight

STOPPING = {"stop_after": 1, "stop_factor": 2, "stop_margin": 0.0}
SPARED = ("t0000", "t0001")  # ERM and the paper's configuration


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Events, "_ended", lambda *_: None)


async def epoch(broker: Broker, trial_id: str, acc: float, *, number: int = 1) -> bool:
    """Offer a configuration, hand it to a slot of its own, report an epoch; whether it goes on."""
    await broker.offer(trial_id, ERM if trial_id == "t0000" else FAIR)
    job = await take(broker, f"slot-{trial_id}")
    assert job["trial_id"] == trial_id
    return await broker.report(f"slot-{trial_id}", row(job, number, acc=acc, w_f1=acc))


def test_a_beaten_configuration_ends_as_stopped_and_its_slot_takes_the_next(tmp_path):
    folder = create(tmp_path / "sweep", **STOPPING)

    async def story(broker: Broker) -> None:
        assert await epoch(broker, "t0002", 0.5)
        assert await epoch(broker, "t0003", 0.6)
        assert not await epoch(broker, "t0004", 0.4)
        outcome = await broker.outcome("t0004", SOON)
        assert outcome["status"] == "stopped" and outcome["acc"] == 0.4
        assert (await broker.status())["slots"].get("slot-t0004") is None
        await broker.offer("t0005", FAIR)
        assert (await take(broker, "slot-t0004"))["trial_id"] == "t0005"

    on(folder, story)
    ended = trial(folder, "t0004")
    assert ended.status == "stopped" and ended.ended
    assert ended.rows[-1]["reason"] == "not among the best of 3 after epoch 1"
    assert [t.status for t in Records.open(folder).trials()].count("running") == 3


def test_the_baselines_are_never_stopped_and_nothing_is_without_the_setting(tmp_path):
    async def story(broker: Broker) -> None:
        for name, acc in (("t0005", 0.9), ("t0006", 0.8), *((name, 0.3) for name in SPARED)):
            assert await epoch(broker, name, acc) == (name != "t0006")

    on(create(tmp_path / "on", **STOPPING), story)
    assert {t.trial_id: t.status for t in Records.open(tmp_path / "on").trials()} == {
        "t0005": "running",
        "t0006": "stopped",  # second of two, and one in two goes on
        "t0000": "running",
        "t0001": "running",
    }

    async def without(broker: Broker) -> None:
        for i, acc in enumerate((0.9, 0.8, 0.7, 0.1)):
            assert await epoch(broker, f"t000{i + 2}", acc)

    on(create(tmp_path / "off"), without)
    points = {f"p{i}": {"loss": "erm"} for i in range(6)}
    on(create(tmp_path / "points", points=points, **STOPPING), without)


def test_a_restarted_broker_decides_from_the_records_as_the_lost_one_would_have(tmp_path):
    values = {"t0002": 0.5, "t0003": 0.7, "t0004": 0.6, "t0005": 0.65}
    told = {}
    for name in ("whole", "restarted"):
        folder = create(tmp_path / name, **STOPPING)

        async def first(broker: Broker) -> None:
            for trial_id, acc in values.items():
                await epoch(broker, trial_id, acc)

        async def then(broker: Broker) -> None:
            assert not await epoch(broker, "t0006", 0.55)
            assert await epoch(broker, "t0007", 0.69)

        async def both(broker: Broker) -> None:
            await first(broker)
            await then(broker)

        if name == "whole":
            on(folder, both)
        else:
            on(folder, first)
            on(folder, then)
        told[name] = [(r["trial_id"], r["epoch"], r["status"], r["reason"]) for r in rows(folder)]
    assert told["whole"] == told["restarted"]


def test_a_model_that_says_always_the_same_is_stopped_whatever_its_gap(tmp_path):
    folder = create(tmp_path / "sweep", **STOPPING)

    async def story(broker: Broker) -> None:
        assert not await epoch(broker, "t0002", 0.2)  # the majority rate; nobody else is there
        assert await epoch(broker, "t0003", 0.3)

    on(folder, story)


def test_a_stopped_trial_is_told_as_pruned_live_and_from_the_records(tmp_path):
    config = Config().replace({"sweep.trials": 40} | {f"sweep.{k}": v for k, v in STOPPING.items()})
    searcher = RecordsSearcher(config)
    folder = create(tmp_path / "sweep", **STOPPING)
    records = Records.open(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a sampler that stumbles over it would warn
        for number in range(24):
            offer = searcher.suggest(f"tune-{number}")
            status = "stopped" if number % 2 else "finished"
            scores = {"acc": 0.3 + number / 100, "max_gap": 0.1, "w_f1": 0.3}
            records.append(
                {"trial_id": offer["trial_id"], "attempt": 1, "epoch": 1, "status": status}
                | {"reason": None, "config": offer["hyperparameters"], "selected": scores}
            )
            searcher.on_trial_complete(f"tune-{number}", {"status": status} | scores)
        again = RecordsSearcher(config, Records.open(folder).trials())
        assert again.suggest("next")["trial_id"] == "t0024"
    for study in (searcher.study, again.study):
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        assert states.count(TrialState.PRUNED) == 12
        assert states.count(TrialState.COMPLETE) == 12
        assert all(
            trial.values is None for trial in study.trials if trial.state == TrialState.PRUNED
        )


def test_hindsight_counts_what_all_that_is_known_would_have_kept(tmp_path):
    folder = create(tmp_path / "sweep", **STOPPING)

    async def story(broker: Broker) -> None:
        assert await epoch(broker, "t0002", 0.7)
        assert not await epoch(broker, "t0003", 0.6)  # second of two
        assert not await epoch(broker, "t0004", 0.5)
        assert not await epoch(broker, "t0005", 0.4)

    on(folder, story)
    records = Records.open(folder)
    write_hindsight(records, from_dict(records.sweep["config"]))
    told = json.loads((folder / "stopping.json").read_text())
    assert told == {"stopped": 3, "regretted": 1}  # t0003 is second of four


def test_what_a_trial_showed_at_its_rungs_reaches_the_searcher(tmp_path):
    folder = create(tmp_path / "sweep", stop_after=2, stop_factor=2)

    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "slot")
        last = job["config"]["train"]["epochs"]
        for number in range(1, last + 1):
            await broker.report("slot", row(job, number, acc=number / 10, last=number == last))
        assert (await broker.outcome("t0000", SOON))["curve"] == wanted

    wanted = [[0.8, [0.2, 0.1]], [0.4, [0.4, 0.1]]]  # after epochs 2 and 4 of 6
    on(folder, story)
    records = Records.open(folder)
    assert curve(records.trials()[0].rows, from_dict(records.sweep["config"])) == wanted
