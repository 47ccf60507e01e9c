"""The broker alone, without Ray: what is committed, who holds what, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ermgap.config import Config
from ermgap.records import Records
from sweeps.broker import STARTS, Broker
from sweeps.events import Events

ERM = {"loss": "erm", "lr": 0.003}
FAIR = {"loss": "minmaxgap", "weight": "linear", "lambda_max": 0.1, "lr": 0.001}
SOON = 0.02


@pytest.fixture
def folder(tmp_path) -> Path:
    return create(tmp_path / "sweep")


def create(folder: Path, **sweep) -> Path:
    config = Config().replace({f"sweep.{key}": value for key, value in sweep.items()})
    described = {"config": config.to_dict(), "labels": ["a", "b"], "trials": 10, "n_dev": 8}
    described |= {"objectives": ["acc", "max_gap"], "directions": {"acc": "max", "max_gap": "min"}}
    described |= {"reference_point": {"acc": 0.2, "max_gap": 0.3}, "majority_rate": 0.2}
    Records.create(folder, sweep=described, table=pd.DataFrame({"utterance_id": ["u"]}))
    return folder


def on(folder: Path, story) -> None:
    """Run `story(broker)` to its end; a story that hangs fails."""

    async def play() -> None:
        await asyncio.wait_for(story(Broker(str(folder))), 20)

    asyncio.run(play())


def row(job: dict, epoch: int, *, last: bool = False, acc: float = 0.5, w_f1: float = 0.5) -> dict:
    """What a worker reports of an epoch (ermgap/loop.py)."""
    scores = {"acc": acc, "w_f1": w_f1, "max_gap": 0.1, "worst_group_w_f1": 0.3}
    scores |= {"max_loss_gap": 0.2}
    dev = scores | {"majority_rate": 0.2, "gaps": {}}
    told = {key: job[key] for key in ("trial_id", "attempt")} | {"config": job["chosen"]}
    told |= {"epoch": epoch, "last": last, "selected": {"epoch": epoch} | scores, "dev": dev}
    told |= {"lambda": 0.0, "train_loss": 1.0, "losses": {}, "utterances_per_second": 1.0}
    return told | {"peak_memory_mb": 1.0, "time": time.time()}


def rows(folder: Path) -> list[dict]:
    return Records.open(folder).rows()


def trial(folder: Path, trial_id: str):
    return next(t for t in Records.open(folder).trials() if t.trial_id == trial_id)


def test_an_epoch_is_on_disk_before_its_slot_hears_the_answer(folder, monkeypatch):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await broker.take("slot-0", SOON)
        assert (job["kind"], job["trial_id"], job["epoch"], job["attempt"]) == ("job", "t0000", 0, 1)
        assert job["chosen"] == ERM and job["config"]["train"]["lr"] == 0.003
        for epoch in (1, 2):
            assert await broker.report("slot-0", row(job, epoch)) is True
            assert rows(folder)[-1] | {"epoch": epoch, "status": "running"} == rows(folder)[-1]
        assert await broker.report("slot-0", row(job, 3, last=True)) is False
        assert trial(folder, "t0000").status == "finished"
        assert (await broker.outcome("t0000", SOON))["acc"] == 0.5

        def refuse(line) -> None:
            raise OSError("disk full")

        await broker.offer("t0001", FAIR)
        job = await broker.take("slot-0", SOON)
        monkeypatch.setattr(broker.records, "append", refuse)
        with pytest.raises(OSError, match="disk full"):
            await broker.report("slot-0", row(job, 1, last=True))
        assert await broker.outcome("t0001", SOON) is None

    on(folder, story)


def test_a_slot_that_asks_while_it_holds_one_gets_it_again_from_its_last_epoch(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        job = await broker.take("slot-0", SOON)
        await broker.report("slot-0", row(job, 1))
        await broker.report("slot-0", row(job, 2))
        again = await broker.take("slot-0", SOON)
        assert again == job | {"attempt": 2, "epoch": 2}
        assert await broker.report("slot-0", row(again, 3, last=True)) is False
        assert (await broker.outcome("t0000", SOON))["status"] == "finished"
        assert (await broker.take("slot-0", SOON))["trial_id"] == "t0001"

    on(folder, story)


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_after_its_attempts_a_configuration_fails_alone_with_the_trouble_s_words(
    tmp_path, attempts
):
    folder = create(tmp_path / "sweep", attempts=attempts)

    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        for number in range(1, attempts + 1):
            job = await broker.take("slot-0", SOON)
            assert (job["trial_id"], job["attempt"]) == ("t0000", number)
            await broker.trouble("slot-0", "t0000", f"Boom: number {number}")
            await broker.trouble("slot-0", "t0000", "RuntimeError: connection closed by peer")
        assert (await broker.take("slot-0", SOON))["trial_id"] == "t0001"
        outcome = await broker.outcome("t0000", SOON)
        assert outcome["status"] == "failed" and f"Boom: number {attempts}" in outcome["reason"]
        assert trial(folder, "t0000").reason == outcome["reason"]
        assert (await broker.status())["reasons"] == {"t0000": outcome["reason"]}

    on(folder, story)


def test_a_worker_that_dies_without_a_word_is_said_to_have_died(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.take("slot-0", SOON)
        await broker.trouble("slot-0", "t0000", "Boom")  # of the first attempt only
        await broker.take("slot-0", SOON)
        await broker.take("slot-0", SOON)
        assert "process died" in trial(folder, "t0000").reason

    on(folder, story)


def test_reports_of_an_older_attempt_or_of_another_slot_are_refused_without_a_row(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        old = await broker.take("slot-0", SOON)
        other = await broker.take("slot-1", SOON)
        new = await broker.take("slot-0", SOON)
        assert (old["attempt"], new["attempt"], other["trial_id"]) == (1, 2, "t0001")
        before = rows(folder)
        assert await broker.report("slot-0", row(old, 1)) is False
        assert await broker.report("slot-1", row(new, 1)) is False
        assert await broker.report("slot-0", row(other, 1, last=True)) is False
        assert await broker.report("slot-9", row(new | {"trial_id": "t9999"}, 1)) is False
        await broker.failed("slot-0", "t0000", 1, "late")
        await broker.failed("slot-1", "t0000", 2, "another's")
        await broker.trouble("slot-1", "t0000", "another's")
        assert rows(folder) == before and await broker.outcome("t0000", SOON) is None
        assert await broker.report("slot-0", row(new, 1)) is True

    on(folder, story)


def test_a_configuration_that_fails_ends_alone_and_the_others_go_on(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        first, second = [await broker.take(f"slot-{n}", SOON) for n in range(2)]
        await broker.report("slot-0", row(first, 1))
        await broker.failed("slot-0", "t0000", 1, "the objective is not finite in epoch 2")
        outcome = await broker.outcome("t0000", SOON)
        assert outcome["reason"] == "the objective is not finite in epoch 2"
        assert (trial(folder, "t0000").status, trial(folder, "t0000").epoch) == ("failed", 2)
        assert await broker.report("slot-1", row(second, 1)) is True
        assert (await broker.status())["running"] == {"t0001": 1}
        assert await broker.take("slot-0", SOON) == {"kind": "wait"}

    on(folder, story)


def test_after_an_interrupt_epochs_in_flight_end_and_trials_stay_unfinished(folder):
    async def story(broker: Broker) -> None:
        for number in range(4):
            await broker.offer(f"t{number:04d}", ERM)
        jobs = [await broker.take(f"slot-{n}", SOON) for n in range(3)]
        waiting = asyncio.create_task(broker.take("slot-3", 20))
        await asyncio.sleep(0)
        assert (await waiting)["trial_id"] == "t0003"
        await broker.interrupt()
        assert await broker.outcome("t0000", SOON) is None  # its epoch is still in flight
        assert await broker.report("slot-0", row(jobs[0], 1)) is False
        assert (await broker.outcome("t0000", SOON))["status"] == "interrupted"
        assert await broker.report("slot-1", row(jobs[1], 1, last=True)) is False
        assert (await broker.outcome("t0001", SOON))["status"] == "finished"
        await broker.offer("t0009", FAIR)  # Tune was about to offer it
        assert (await broker.outcome("t0009", SOON))["status"] == "interrupted"
        # A worker that dies now gives its configuration back, and no slot is given one.
        for n in range(3):
            assert await broker.take(f"slot-{n}", SOON) == {"kind": "close"}
        assert (await broker.outcome("t0002", SOON))["status"] == "interrupted"
        assert [t.status for t in Records.open(folder).trials()].count("running") == 4
        assert trial(folder, "t0000").epoch == 1

    on(folder, story)


def test_whoever_waits_is_woken_by_an_interrupt(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await broker.take("slot-0", SOON)
        slot = asyncio.create_task(broker.take("slot-1", 20))
        outcome = asyncio.create_task(broker.outcome("t0000", 20))
        await asyncio.sleep(SOON)
        await broker.interrupt()
        assert await slot == {"kind": "close"}
        await asyncio.sleep(SOON)
        assert not outcome.done()
        await broker.report("slot-0", row(job, 1))
        assert (await outcome)["status"] == "interrupted"

    on(folder, story)


def test_a_trial_that_waits_for_an_epoch_in_flight_after_an_interrupt_does_not_spin(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.take("slot-0", SOON)
        await broker.interrupt()
        started = time.monotonic()
        assert await broker.outcome("t0000", 0.2) is None
        assert time.monotonic() - started > 0.15

    on(folder, story)


@pytest.mark.parametrize("how", ["give_up", "close"])
def test_when_the_sweep_is_over_a_slot_in_training_ends_after_its_epoch(folder, how):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await broker.take("slot-0", SOON)
        await (broker.give_up("no weights") if how == "give_up" else broker.close())
        assert await broker.report("slot-0", row(job, 1)) is False
        assert await broker.take("slot-0", SOON) == {"kind": "close"}
        assert trial(folder, "t0000").status == "running" and trial(folder, "t0000").epoch == 1

    on(folder, story)


def test_waiting_for_an_outcome_or_a_job_times_out(folder):
    async def story(broker: Broker) -> None:
        started = time.monotonic()
        assert await broker.take("slot-0", 0.05) == {"kind": "wait"}
        await broker.offer("t0000", ERM)
        assert await broker.outcome("t0000", 0.05) is None
        assert await broker.outcome("t0000", 0) is None
        assert await broker.outcome("never offered", 0.05) is None
        assert 0.1 < time.monotonic() - started < 5

    on(folder, story)


def test_an_offer_wakes_one_of_the_slots_that_wait(folder):
    async def story(broker: Broker) -> None:
        slots = [asyncio.create_task(broker.take(f"slot-{n}", 0.3)) for n in range(3)]
        await asyncio.sleep(SOON)
        await broker.offer("t0000", ERM)
        kinds = [answer["kind"] for answer in await asyncio.gather(*slots)]
        assert sorted(kinds) == ["job", "wait", "wait"]

    on(folder, story)


def test_a_group_that_died_while_it_waited_is_given_nothing(folder):
    async def story(broker: Broker) -> None:
        dead = asyncio.create_task(broker.take("slot-0", 20))
        await asyncio.sleep(SOON)
        alive = asyncio.create_task(broker.take("slot-0", 20))
        await asyncio.sleep(SOON)
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        assert await dead == {"kind": "wait"}
        job = await alive
        assert (job["trial_id"], job["attempt"]) == ("t0000", 1)
        await broker.report("slot-0", row(job, 1, last=True))
        assert (await broker.take("slot-0", SOON))["trial_id"] == "t0001"

    on(folder, story)


def test_an_offer_made_twice_is_one_offer(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.offer("t0000", ERM)
        assert (await broker.take("slot-0", SOON))["kind"] == "job"
        assert (await broker.take("slot-1", SOON))["kind"] == "wait"
        assert len(rows(folder)) == 1

    on(folder, story)


def test_a_configuration_that_is_refused_fails_without_bothering_a_slot(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", FAIR | {"lambda_max": -1.0})
        outcome = await broker.outcome("t0000", SOON)
        assert outcome["status"] == "failed" and "objective.lambda_max" in outcome["reason"]
        assert await broker.take("slot-0", SOON) == {"kind": "wait"}

    on(folder, story)


def test_the_first_sentence_of_giving_up_reaches_the_driver_and_frees_the_trials(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.take("slot-0", SOON)
        outcome = asyncio.create_task(broker.outcome("t0000", 20))
        await broker.give_up("the weights are damaged; build them again.")
        await broker.give_up("another sentence")
        assert (await broker.status())["fatal"] == "the weights are damaged; build them again."
        assert (await outcome)["status"] == "interrupted"

    on(folder, story)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_group_that_keeps_dying_before_an_epoch_ends_the_sweep(tmp_path, workers):
    folder = create(tmp_path / "sweep", workers=workers)

    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        for _ in range(STARTS * workers):
            await broker.material("slot-0")
        assert (await broker.status())["fatal"] is None
        job = await broker.take("slot-0", SOON)
        await broker.report("slot-0", row(job, 1))
        for _ in range(STARTS * workers):  # counted anew after an epoch
            await broker.material("slot-0")
        assert (await broker.status())["fatal"] is None
        await broker.material("slot-1")
        await broker.material("slot-0")
        assert "slot-0" in (await broker.status())["fatal"]

    on(folder, story)


def test_a_group_gets_the_configuration_the_table_and_the_storage(folder):
    async def story(broker: Broker) -> None:
        material = await broker.material("slot-0")
        assert material["config"] == Records.open(folder).sweep["config"]
        assert material["table"]["utterance_id"].to_list() == ["u"]
        assert Path(material["storage"]) == folder and Path(material["storage"]).is_absolute()

    on(folder, story)


@pytest.mark.parametrize(
    ("acc", "w_f1", "floor", "status"),
    [
        (0.5, 0.5, None, "finished"),
        (0.2, 0.5, None, "degenerate"),  # not above the majority rate
        (0.5, 0.29, None, "degenerate"),  # under half of ERM's best, 0.6
        (0.5, 0.31, None, "finished"),
        (0.5, 0.29, 0.2, "finished"),
        (0.5, 0.45, 0.5, "degenerate"),
    ],
)
def test_a_point_is_found_degenerate_when_its_trial_ends_and_not_before(
    tmp_path, acc, w_f1, floor, status
):
    folder = create(tmp_path / "sweep", floor=floor)

    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        erm = await broker.take("slot-0", SOON)
        await broker.report("slot-0", row(erm, 1, w_f1=0.6, last=True))
        await broker.offer("t0001", FAIR)
        job = await broker.take("slot-0", SOON)
        assert await broker.report("slot-0", row(job, 1, acc=0.1, w_f1=0.01)) is True
        assert trial(folder, "t0001").status == "running"
        await broker.report("slot-0", row(job, 2, acc=acc, w_f1=w_f1, last=True))
        assert (await broker.outcome("t0001", SOON))["status"] == status
        assert trial(folder, "t0001").status == status

    on(folder, story)


def test_erm_s_best_is_remembered_by_the_next_broker(folder):
    async def first(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await broker.take("slot-0", SOON)
        await broker.report("slot-0", row(job, 1, w_f1=0.8, last=True))

    async def second(broker: Broker) -> None:
        await broker.offer("t0001", FAIR)
        job = await broker.take("slot-0", SOON)
        await broker.report("slot-0", row(job, 1, w_f1=0.35, last=True))
        assert (await broker.outcome("t0001", SOON))["status"] == "degenerate"

    on(folder, first)
    on(folder, second)


def test_a_new_broker_goes_on_at_the_committed_epoch_and_attempt(folder):
    async def first(broker: Broker) -> None:
        for number in range(3):
            await broker.offer(f"t{number:04d}", ERM)
        job = await broker.take("slot-0", SOON)
        await broker.report("slot-0", row(job, 1))
        job = await broker.take("slot-0", SOON)  # its group died: attempt 2
        await broker.report("slot-0", row(job, 2, w_f1=0.7))
        await broker.take("slot-1", SOON)  # took one and committed nothing

    async def second(broker: Broker) -> None:
        for number in range(3):
            await broker.offer(f"t{number:04d}", ERM)
        jobs = [await broker.take(f"slot-{n}", SOON) for n in range(3)]
        assert [(job["epoch"], job["attempt"]) for job in jobs] == [(2, 2), (0, 1), (0, 1)]
        assert await broker.report("slot-0", row(jobs[0], 3)) is True
        assert [r["epoch"] for r in trial(folder, "t0000").rows] == [0, 1, 2, 3]
        # The session's end was no fault of the configuration, but its group's death was.
        assert (await broker.take("slot-0", SOON))["kind"] == "wait"
        assert trial(folder, "t0000").status == "failed"

    on(folder, first)
    on(folder, second)
    assert sum(r["epoch"] == 0 for r in rows(folder)) == 3  # offered once each in the records


def test_the_checkpoints_of_a_trial_go_when_it_ends_and_stay_while_it_may_go_on(folder):
    def checkpoint(trial_id: str) -> Path:
        path = folder / "checkpoints" / trial_id / "epoch-0001.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        return path

    async def story(broker: Broker) -> None:
        kept, gone = checkpoint("t0001"), checkpoint("t0000")
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        first, second = [await broker.take(f"slot-{n}", SOON) for n in range(2)]
        await broker.report("slot-1", row(second, 1))
        await broker.report("slot-0", row(first, 1, last=True))
        await broker.interrupt()
        await broker.report("slot-1", row(second, 2))
        assert kept.exists() and not gone.exists()

    on(folder, story)


@pytest.mark.parametrize("method", ["_epoch", "_ended"])
def test_events_that_cannot_be_written_hurt_no_trial(folder, monkeypatch, method):
    def fail(*_) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Events, method, fail)

    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await broker.take("slot-0", SOON)
        assert await broker.report("slot-0", row(job, 1)) is True
        assert await broker.report("slot-0", row(job, 2, last=True)) is False
        assert (await broker.outcome("t0000", SOON))["status"] == "finished"
        await broker.close()

    on(folder, story)


@pytest.mark.parametrize("seed", range(4))
def test_with_slots_that_die_at_random_every_trial_ends_once_and_nothing_hangs(tmp_path, seed):
    folder = create(tmp_path / "sweep", attempts=3)
    rng = np.random.default_rng(seed)
    trials, epochs = [f"t{number:04d}" for number in range(8)], 3

    async def slot(broker: Broker, name: str) -> None:
        while True:
            if rng.random() < 0.2:  # dies while it waits: its question stays in the broker
                asyncio.create_task(broker.take(name, 0.05))
                await asyncio.sleep(rng.random() * 0.01)
            job = await broker.take(name, 0.05)
            if job["kind"] == "close":
                return
            for epoch in range(job.get("epoch", 0) + 1, epochs + 1 if "trial_id" in job else 0):
                await asyncio.sleep(rng.random() * 0.005)
                if rng.random() < 0.1:
                    break  # dies before its report
                told = broker.report(name, row(job, epoch, last=epoch == epochs))
                if not await told or rng.random() < 0.1:
                    break  # told to end, or dies after the commit

    async def tune(broker: Broker, mine: list[str]) -> list[str]:
        ended = []
        for name in mine:
            await broker.offer(name, ERM)
            while (outcome := await broker.outcome(name, 0.1)) is None:
                pass
            ended.append(outcome["status"])
        return ended

    async def story(broker: Broker) -> None:
        monkey = [asyncio.create_task(slot(broker, f"slot-{n}")) for n in range(2)]
        ended = await asyncio.gather(*(tune(broker, trials[n::3]) for n in range(3)))
        await broker.close()
        await asyncio.gather(*monkey)
        assert {status for some in ended for status in some} <= {"finished", "failed"}

    on(folder, story)
    found = Records.open(folder).trials()
    assert sorted(t.trial_id for t in found) == trials and all(t.ended for t in found)
    for one in found:
        final = [r for r in rows(folder) if r["trial_id"] == one.trial_id]
        assert [r["status"] != "running" for r in final] == [False] * (len(final) - 1) + [True]
        assert [r["epoch"] for r in final] == list(range(len(final)))
