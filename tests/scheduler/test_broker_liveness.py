"""The broker without Ray: nobody waits for ever, whoever dies or presses Ctrl-C, and when."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from broker_story import ERM, FAIR, SOON, create, on, row, rows, take, trial

from ermgap.records import Records
from sweeps.recording.events import Events
from sweeps.scheduler.broker import STARTS, Broker


@pytest.fixture
def folder(tmp_path) -> Path:
    return create(tmp_path / "sweep")


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the front costs more than all the rest; test_events.py looks at it."""
    monkeypatch.setattr(Events, "_ended", lambda *_: None)


def test_after_an_interrupt_epochs_in_flight_end_and_trials_stay_unfinished(folder):
    async def story(broker: Broker) -> None:
        for number in range(4):
            await broker.offer(f"t{number:04d}", ERM)
        jobs = [await take(broker, f"slot-{n}") for n in range(3)]
        waiting = asyncio.create_task(take(broker, "slot-3", 20))
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
            assert await take(broker, f"slot-{n}") == {"kind": "close"}
        assert (await broker.outcome("t0002", SOON))["status"] == "interrupted"
        assert [t.status for t in Records.open(folder).trials()].count("running") == 4
        assert trial(folder, "t0000").epoch == 1

    on(folder, story)


def test_whoever_waits_is_woken_by_an_interrupt(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "slot-0")
        slot = asyncio.create_task(take(broker, "slot-1", 20))
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
        await take(broker, "slot-0")
        await broker.interrupt()
        started = time.monotonic()
        assert await broker.outcome("t0000", 0.2) is None
        assert time.monotonic() - started > 0.15

    on(folder, story)


@pytest.mark.parametrize("how", ["give_up", "close"])
def test_when_the_sweep_is_over_a_slot_in_training_ends_after_its_epoch(tmp_path, how):
    folder = create(tmp_path / "sweep", attempts=1)

    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "slot-0")
        await (broker.give_up("no weights") if how == "give_up" else broker.close())
        assert await broker.report("slot-0", row(job, 1)) is False
        assert await take(broker, "slot-0") == {"kind": "close"}
        assert trial(folder, "t0000").status == "running" and trial(folder, "t0000").epoch == 1

    on(folder, story)


def test_waiting_for_an_outcome_or_a_job_times_out(folder):
    async def story(broker: Broker) -> None:
        started = time.monotonic()
        assert await take(broker, "slot-0", 0.05) == {"kind": "wait"}
        await broker.offer("t0000", ERM)
        assert await broker.outcome("t0000", 0.05) is None
        assert await broker.outcome("t0000", 0) is None
        assert await broker.outcome("never offered", 0.05) is None
        assert time.monotonic() - started > 0.09

    on(folder, story)


def test_an_offer_wakes_one_of_the_slots_that_wait(folder):
    async def story(broker: Broker) -> None:
        slots = [asyncio.create_task(take(broker, f"slot-{n}", 0.3)) for n in range(3)]
        await asyncio.sleep(SOON)
        await broker.offer("t0000", ERM)
        answers = await asyncio.gather(*slots)
        assert sorted(answer.get("kind", "a job") for answer in answers) == ["a job"] + ["wait"] * 2

    on(folder, story)


def test_a_group_that_died_while_it_waited_is_given_nothing(folder):
    async def story(broker: Broker) -> None:
        dead = asyncio.create_task(take(broker, "slot-0", 20))
        await asyncio.sleep(SOON)
        alive = asyncio.create_task(take(broker, "slot-0", 20))
        await asyncio.sleep(SOON)
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        assert await dead == {"kind": "wait"}
        job = await alive
        assert (job["trial_id"], job["attempt"]) == ("t0000", 1)
        await broker.report("slot-0", row(job, 1, last=True))
        assert (await take(broker, "slot-0"))["trial_id"] == "t0001"

    on(folder, story)


def test_a_slot_that_ends_for_good_gives_its_trial_back_to_the_front_of_the_queue(folder):
    async def story(broker: Broker) -> None:
        for number in range(2):
            await broker.offer(f"t{number:04d}", ERM)
        await take(broker, "slot-0")
        await broker.slot_ended("slot-0")
        status = await broker.status()
        assert (status["slots"], status["queued"]) == ({}, ["t0000", "t0001"])
        assert (await take(broker, "slot-1"))["attempt"] == 2

    on(folder, story)


def test_an_offer_made_twice_is_one_offer(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.offer("t0000", ERM)
        assert (await take(broker, "slot-0"))["trial_id"] == "t0000"
        assert (await take(broker, "slot-1"))["kind"] == "wait"
        assert len(rows(folder)) == 1

    on(folder, story)


def test_the_first_sentence_of_giving_up_reaches_the_driver_and_frees_the_trials(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await take(broker, "slot-0")
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
            await broker.setup("slot-0")
        assert (await broker.status())["fatal"] is None
        job = await take(broker, "slot-0")
        await broker.report("slot-0", row(job, 1))
        for _ in range(STARTS * workers):  # counted anew after an epoch
            await broker.setup("slot-0")
        assert (await broker.status())["fatal"] is None
        await broker.setup("slot-1")
        await broker.setup("slot-0")
        assert "slot-0" in (await broker.status())["fatal"]

    on(folder, story)


@pytest.mark.parametrize("seed", range(3))
def test_with_slots_that_die_at_random_every_trial_ends_once_and_nothing_hangs(tmp_path, seed):
    folder = create(tmp_path / "sweep", attempts=3)
    rng = np.random.default_rng(seed)
    trials, epochs = [f"t{number:04d}" for number in range(8)], 3

    async def slot(broker: Broker, name: str) -> None:
        while True:
            if rng.random() < 0.2:  # dies while it waits: its question stays in the broker
                asyncio.create_task(take(broker, name, 0.05))
                await asyncio.sleep(rng.random() * 0.01)
            job = await take(broker, name, 0.05)
            if job.get("kind") == "close":
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
