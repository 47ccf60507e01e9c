"""One rule of degenerate trials: whoever judges, and whenever, says the same."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from broker_story import ERM, FAIR, SOON, create, on, row, study, take
from optuna.trial import TrialState

from analysis.front import front
from ermgap.config import Config, from_dict
from ermgap.records import DegenerateRule, Records, judge_trials
from sweeps.recording.events import Events
from sweeps.scheduler.broker import Broker
from sweeps.search.searcher import RecordsSearcher, searcher
from sweeps.search.stopping import Rungs

MAJORITY = 0.2


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Events, "_ended", lambda *_: None)


async def train(broker: Broker, trial_id: str, hyperparameters: dict, *scores: tuple) -> dict:
    """Epochs of (acc, w_f1); returns the outcome."""
    await broker.offer(trial_id, hyperparameters)
    job = await take(broker, "slot")
    for epoch, (acc, w_f1) in enumerate(scores, start=1):
        last = epoch == len(scores)
        await broker.report("slot", row(job, epoch, acc=acc, w_f1=w_f1, max_gap=0.1, last=last))
    return await broker.outcome(trial_id, SOON)


def verdicts(folder, known: RecordsSearcher) -> list[set[str]]:
    """Which trials are degenerate by the records, the front, the journal, and two searchers."""
    records = Records.open(folder)
    trials, config = records.trials(), from_dict(records.sweep["config"])
    resumed = searcher(config, trials, rule=records.rule(()))
    names = {json.dumps(t.hyperparameters, sort_keys=True): t.trial_id for t in trials}
    journal = {
        t.user_attrs["trial_id"] for t in study(folder).get_trials() if poor(t.constraints)
    }  # fmt: skip
    return [
        {trial.trial_id for trial in trials if trial.status == "degenerate"},
        {point.trial_id for point in front.info(records).points if point.kind == "degenerate"},
        journal,
        *(
            {names[json.dumps(t.params, sort_keys=True)] for t in searcher.study.trials
             if poor(t.constraints)}
            for searcher in (known, resumed)
        ),
    ]  # fmt: skip


def poor(constraints: dict) -> bool:
    return constraints.get("degenerate", -1.0) > 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("floor", [None, 0.4])
def test_searcher_records_front_and_journal_agree_after_every_end(tmp_path, floor, seed):
    folder = create(tmp_path / "sweep", floor=floor, sampler="random", seed=seed)
    records, draw = Records.open(folder), random.Random(seed).random
    live = searcher(from_dict(records.sweep["config"]), rule=records.rule(()))

    async def story(broker: Broker) -> None:
        for number in range(10):
            offer = live.suggest(str(number))
            epochs = [(0.1 + 0.7 * draw(), 0.1 + 0.7 * draw()) for _ in range(2)]
            outcome = await train(broker, offer["trial_id"], offer["hyperparameters"], *epochs)
            live.on_trial_complete(str(number), outcome)
            said = verdicts(folder, live)
            # The paper's point need not be in the searched space, so Optuna may not know it.
            assert all(other == said[0] for other in said[:3])
            assert said[3] == said[4] == said[0] - unknown(folder, live)

    on(folder, story)


def unknown(folder, live: RecordsSearcher) -> set[str]:
    known = [t.params for t in live.study.trials]
    return {t.trial_id for t in Records.open(folder).trials() if t.hyperparameters not in known}


def test_a_better_erm_makes_an_earlier_trial_degenerate_for_the_searcher_too():
    config = Config().replace({"sweep.trials": 40, "sweep.sampler": "random"})
    known = RecordsSearcher(config, rule=DegenerateRule(MAJORITY))
    scores = {"status": "finished", "acc": 0.5, "max_gap": 0.1}
    places = {}
    for number in range(6):
        hyperparameters = known.suggest(str(number))["hyperparameters"]
        places[number] = len(known.study.trials) - 1
        w_f1 = 0.9 if number == 5 else 0.4 if hyperparameters["loss"] == "erm" else 0.3
        known.on_trial_complete(str(number), scores | {"w_f1": w_f1})
        if number == 4:
            assert not any(poor(t.constraints) for t in known.study.trials)
    assert hyperparameters["loss"] == "erm"
    trials = known.study.trials
    assert [poor(t.constraints) for t in trials] == [True] * (len(trials) - 1) + [False]
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    assert [t.number for t in known.study.best_trials] == [len(trials) - 1]


def test_while_others_run_they_keep_their_places_and_are_judged_after_the_floor_rose():
    config = Config().replace({"sweep.trials": 40, "sweep.sampler": "tpe"})
    known = RecordsSearcher(config, points=(), rule=DegenerateRule(MAJORITY))
    offers = [known.suggest(str(number))["hyperparameters"] for number in range(6)]
    erm = next(i for i, hyperparameters in enumerate(offers) if hyperparameters["loss"] == "erm")
    order = [i for i in range(6) if i != erm]
    good = {"status": "finished", "acc": 0.5, "max_gap": 0.1}
    for number in (*order[:2], erm, *order[2:]):
        w_f1 = 0.9 if number == erm else 0.3
        known.on_trial_complete(str(number), good | {"w_f1": w_f1})
    trials = known.study.trials
    assert [t.params for t in trials] == offers and {t.state for t in trials} == {
        TrialState.COMPLETE
    }
    assert [poor(t.constraints) for t in trials] == [i != erm for i in range(6)]
    assert known.suggest("next")["trial_id"] == "t0006"


def test_an_erm_trial_that_has_not_ended_raises_no_floor(tmp_path):
    folder = create(tmp_path / "sweep")

    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "other")
        await broker.report("other", row(job, 1, w_f1=0.9))
        outcome = await train(broker, "t0001", FAIR, (0.5, 0.3))
        assert outcome["status"] == "finished"

    on(folder, story)
    kinds = {p.trial_id: p.kind for p in front.info(Records.open(folder)).points}
    assert kinds["t0001"] == "front"


def test_a_sweep_that_does_not_search_the_loss_has_its_erm_too(tmp_path):
    folder = create(tmp_path / "sweep", space={"loss": False})

    async def story(broker: Broker) -> None:
        await train(broker, "t0000", {"lr": 0.003}, (0.6, 0.8))
        outcome = await train(broker, "t0001", {"lr": 0.001}, (0.5, 0.3))
        assert outcome["status"] == "degenerate"

    on(folder, story)
    assert front.info(Records.open(folder)).floor == 0.4


def test_the_status_of_an_old_row_is_judged_anew(tmp_path):
    folder = create(tmp_path / "sweep")
    records = Records.open(folder)
    ended = [("erm", 0.8, "finished"), ("vrex", 0.3, "finished"), ("vrex", 0.5, "degenerate")]
    for number, (loss, w_f1, status) in enumerate(ended):
        scores = {"epoch": 1, "acc": 0.5, "w_f1": w_f1, "max_gap": 0.1}
        records.append({"trial_id": f"t{number:04d}", "attempt": 1, "epoch": 1, "status": status,
                        "reason": None, "config": {"loss": loss}, "selected": scores})  # fmt: skip
    assert [t.status for t in records.trials()] == ["finished", "degenerate", "finished"]
    records.write_sweep({k: v for k, v in records.sweep.items() if k != "majority_rate"})
    assert [t.status for t in records.trials()] == [status for *_, status in ended]
    assert judge_trials(records.trials(), None) == records.trials()


def test_scores_that_are_undefined_are_degenerate():
    rule = DegenerateRule(MAJORITY)
    for scores in ({}, {"acc": None, "w_f1": 0.5}, {"acc": 0.5}, {"acc": "0.5", "w_f1": 0.5}):
        assert rule.status(scores) == "degenerate"
    assert rule.status({"acc": 0.5, "w_f1": 0.5}) == "finished"


def reached(w_f1: float, *, loss: str = "vrex", acc: float = 0.5) -> dict:
    scores = {"acc": acc, "w_f1": w_f1, "max_gap": 0.1}
    return {"epoch": 2, "config": {"loss": loss}, "selected": scores,
            "dev": {"majority_rate": MAJORITY}}  # fmt: skip


def test_at_a_rung_the_floor_is_half_of_what_erm_reached_there():
    config = Config().replace({"sweep.stop_after": 2})
    rungs = Rungs(config)
    rungs.note("t0000", reached(0.4, loss="erm"))
    rungs.note("t0000", reached(0.9, loss="erm") | {"epoch": 6})
    assert rungs.beaten("t0002", reached(0.25)) is None  # under half of ERM's end, as ERM was
    assert rungs.beaten("t0003", reached(0.15)) is not None
    given = Rungs(config.replace({"sweep.floor": 0.3}))
    assert given.beaten("t0002", reached(0.25)) is not None


def test_with_a_fixed_order_a_rung_compares_with_what_had_ended_and_nothing_else():
    config = Config().replace({"sweep.stop_after": 2, "sweep.stop_margin": 0.0})
    reasons = []
    for seed in range(6):
        rungs = Rungs(config, lag=3)
        for number in random.Random(seed).sample(range(2, 9), 7):  # they end in any order
            rungs.note(f"t{number:04d}", reached(0.5, acc=0.3 + number / 100))
        rungs.note("t0001", reached(0.5, acc=0.9))
        mine = {"t0003": 0.5, "t0004": 0.5, "t0009": 0.31}
        reasons.append([rungs.beaten(name, reached(0.5, acc=acc)) for name, acc in mine.items()])
    assert all(given == reasons[0] for given in reasons)
    assert reasons[0] == [None, "not among the best of 2 after epoch 2",
                       "not among the best of 7 after epoch 2"]  # fmt: skip


def test_with_a_fixed_order_a_row_s_status_knows_only_what_had_ended(tmp_path):
    folder = create(tmp_path / "sweep")

    async def story() -> None:
        broker = Broker(str(folder), lag=3)
        for number in range(4):
            await broker.offer(f"t{number:04d}", ERM if number in (0, 2) else FAIR)
        jobs = [await take(broker, f"slot-{number}") for number in range(4)]
        for number, w_f1 in ((0, 0.5), (2, 0.9), (3, 0.3), (1, 0.2)):
            await broker.report(f"slot-{number}", row(jobs[number], 1, w_f1=w_f1, last=True))
        statuses = [(await broker.outcome(f"t{n:04d}", SOON))["status"] for n in range(4)]
        assert statuses == ["finished"] * 4  # t0003 knows t0000, t0001 no ERM at all

    asyncio.run(story())
    statuses = [t.status for t in Records.open(folder).trials()]
    assert statuses == ["finished", "degenerate", "finished", "degenerate"]
