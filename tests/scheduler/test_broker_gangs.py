"""The broker without Ray, for slots that train several configurations in the same passes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from broker_story import ERM, FAIR, SOON, create, on, row, rows, take, trial

from ermgap.records import Records
from sweeps.recording.events import Events
from sweeps.scheduler.broker import STARTS, Broker
from sweeps.search import gangs

MOMENT = 0.1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No drawing (test_events.py looks at it), and a shorter wait for more members."""
    monkeypatch.setattr(Events, "_ended", lambda *_: None)
    monkeypatch.setattr(gangs, "QUIET_S", MOMENT)


async def offer(broker: Broker, *numbers: int, hyperparameters: dict = ERM) -> None:
    for number in numbers:
        await broker.offer(f"t{number:04d}", hyperparameters)


async def jobs(broker: Broker, slot: str, timeout: float = SOON) -> dict[str, dict]:
    """What a slot is handed, by trial id."""
    answer = await broker.take(slot, timeout)
    return {job["trial_id"]: job for job in answer.get("jobs", [])}


def test_a_full_gang_goes_out_at_once_in_the_order_of_offers(tmp_path, monkeypatch):
    monkeypatch.setattr(gangs, "QUIET_S", 1000.0)

    async def story(broker: Broker) -> None:
        await offer(broker, 0, 2)
        await offer(broker, 1, 3, hyperparameters=FAIR)
        assert list(await jobs(broker, "slot-0")) == ["t0000", "t0002", "t0001"]
        status = await broker.status()
        assert status["held"] == {"slot-0": ["t0000", "t0002", "t0001"]}
        assert status["queued"] == ["t0003"]

    on(create(tmp_path / "sweep", gang=3), story)


def test_a_gang_that_is_not_full_waits_for_more_after_each_offer_and_then_goes(tmp_path):
    async def story(broker: Broker) -> None:
        taken = asyncio.create_task(broker.take("slot-0", SOON))
        for number in range(3):
            await offer(broker, number)
            await asyncio.sleep(0.6 * MOMENT)
            assert not taken.done()
        assert [job["trial_id"] for job in (await taken)["jobs"]] == ["t0000", "t0001", "t0002"]

    on(create(tmp_path / "sweep", gang=4), story)


@pytest.mark.parametrize("how", ["all offered", "ended before", "interrupt", "give_up"])
def test_it_does_not_wait_when_no_more_can_come(tmp_path, monkeypatch, how):
    monkeypatch.setattr(gangs, "QUIET_S", 1000.0)
    folder = create(tmp_path / "sweep", gang=4, trials=3)

    async def before(broker: Broker) -> None:
        await offer(broker, 7)
        for _, job in (await jobs(broker, "slot-0", 0.3)).items():
            await broker.report("slot-0", row(job, 1, last=True))

    async def story(broker: Broker) -> None:
        await offer(broker, 0, 1)
        if how == "all offered":
            await offer(broker, 2)
        if how in ("interrupt", "give_up"):
            taken = asyncio.create_task(broker.take("slot-0", 20))
            await asyncio.sleep(SOON)
            assert not taken.done()
            await (broker.interrupt() if how == "interrupt" else broker.give_up("no weights"))
            assert await taken == {"kind": "close"}
        else:
            assert len(await jobs(broker, "slot-0")) == (3 if how == "all offered" else 2)

    if how == "ended before":
        monkeypatch.setattr(gangs, "QUIET_S", 0.0)
        on(folder, before)
        monkeypatch.setattr(gangs, "QUIET_S", 1000.0)
    on(folder, story)


def test_only_companions_at_the_same_epoch_are_trained_together(tmp_path):
    folder = create(tmp_path / "sweep", gang=4, trials=6)

    async def first(broker: Broker) -> None:
        await offer(broker, 0, 1, 2, 3)
        gang = await jobs(broker, "slot-0")
        for name, epochs in (("t0000", 2), ("t0001", 1), ("t0002", 2)):
            for epoch in range(1, epochs + 1):
                await broker.report("slot-0", row(gang[name], epoch))

    async def second(broker: Broker) -> None:
        await offer(broker, 0, 1, 2, 3, 4)
        other = gangs.Entry("t0005", ERM, config=broker.config.replace({"train.batch": 8}))
        broker.entries["t0005"] = other
        broker.line.add(other)
        gangs_of = [await jobs(broker, f"slot-{n}", 1.0) for n in range(4)]
        assert [list(gang) for gang in gangs_of] == [
            ["t0000", "t0002"],
            ["t0001"],
            ["t0003", "t0004"],
            ["t0005"],
        ]
        assert [{job["epoch"] for job in gang.values()} for gang in gangs_of] == [
            {2},
            {1},
            {0},
            {0},
        ]

    on(folder, first)
    on(folder, second)


def test_members_report_and_end_each_for_itself(tmp_path):
    folder = create(tmp_path / "sweep", gang=3, trials=3)

    async def story(broker: Broker) -> None:
        await offer(broker, 0, 1, 2)
        gang = await jobs(broker, "slot-0")
        for job in gang.values():
            assert await broker.report("slot-0", row(job, 1)) is True
        assert await broker.report("slot-0", row(gang["t0001"], 2, last=True)) is False
        await broker.failed("slot-0", "t0002", 1, "the objective is not finite in epoch 2")
        assert (await broker.status())["held"] == {"slot-0": ["t0000"]}
        assert await broker.report("slot-0", row(gang["t0001"], 3)) is False  # it has ended
        assert await broker.report("slot-0", row(gang["t0000"], 2)) is True
        assert await broker.outcome("t0000", SOON) is None
        assert await broker.report("slot-0", row(gang["t0000"], 3, last=True)) is False
        assert (await broker.status())["held"] == {}
        found = {t.trial_id: (t.status, t.epoch) for t in Records.open(folder).trials()}
        assert found == {"t0000": ("finished", 3), "t0001": ("finished", 2), "t0002": ("failed", 2)}

    on(folder, story)


@pytest.mark.parametrize("attempts", [1, 2])
def test_one_that_kills_its_process_fails_alone_and_its_mates_finish_uncharged(tmp_path, attempts):
    folder = create(tmp_path / "sweep", gang=3, trials=4, attempts=attempts)

    async def story(broker: Broker) -> None:
        await offer(broker, 0, 1, 2)
        gang = await jobs(broker, "slot-0", 1.0)
        for job in gang.values():
            await broker.report("slot-0", row(job, 1))
        await broker.trouble("slot-0", list(gang), "Boom: t0001 did it")
        order, handed = [], await jobs(broker, "slot-0")  # its group was lost: each alone now
        await offer(broker, 3)
        while handed:
            ((name, job),) = handed.items()
            order.append((name, job["attempt"], job["epoch"]))
            if name == "t0001":
                await broker.trouble("slot-0", [name], "Boom: t0001 did it")
            else:
                await broker.report("slot-0", row(job, job["epoch"] + 1, last=True))
            handed = await jobs(broker, "slot-0")
        culprit = [("t0001", 2 + n, 1) for n in range(attempts)]
        assert order == [("t0000", 2, 1), *culprit, ("t0002", 2, 1), ("t0003", 1, 0)]
        assert [trial(folder, f"t000{n}").status for n in (0, 2, 3)] == ["finished"] * 3
        assert (await broker.outcome("t0001", SOON))["status"] == "failed"
        assert trial(folder, "t0001").reason.startswith("Boom: t0001 did it")
        assert (await broker.status())["fatal"] is None

    on(folder, story)


def test_reports_of_a_gang_that_was_lost_are_refused(tmp_path):
    folder = create(tmp_path / "sweep", gang=2, trials=2)

    async def story(broker: Broker) -> None:
        await offer(broker, 0, 1)
        old = await jobs(broker, "slot-0")
        new = await jobs(broker, "slot-0")
        assert list(new) == ["t0000"] and new["t0000"]["attempt"] == 2
        before = rows(folder)
        for job in old.values():
            assert await broker.report("slot-0", row(job, 1)) is False
            await broker.failed("slot-0", job["trial_id"], 1, "late")
        assert rows(folder) == before
        assert await broker.report("slot-0", row(new["t0000"], 1)) is True

    on(folder, story)


def test_being_spared_is_remembered_by_the_next_session(tmp_path):
    folder = create(tmp_path / "sweep", gang=2, trials=3, attempts=2)

    async def first(broker: Broker) -> None:
        await offer(broker, 0, 1)
        await jobs(broker, "slot-0")
        alone = await jobs(broker, "slot-0")
        await broker.report("slot-0", row(alone["t0000"], 1))

    async def second(broker: Broker) -> None:
        await offer(broker, 0, 1, 2)
        job = await take(broker, "slot-0")
        assert (job["trial_id"], job["attempt"], job["epoch"]) == ("t0000", 2, 1)
        again = await take(broker, "slot-0")  # its first death of its own
        assert (again["trial_id"], again["attempt"]) == ("t0000", 3)
        assert list(await jobs(broker, "slot-1", 1.0)) == ["t0001", "t0002"]
        await take(broker, "slot-0")
        assert trial(folder, "t0000").status == "failed"

    on(folder, first)
    on(folder, second)


def test_a_slot_that_ends_for_good_gives_all_its_members_back(tmp_path):
    async def story(broker: Broker) -> None:
        await offer(broker, 0, 1, 2)
        await jobs(broker, "slot-0")
        await broker.left("slot-0")
        status = await broker.status()
        assert (status["held"], status["queued"]) == ({}, ["t0000", "t0001", "t0002"])
        assert [list(await jobs(broker, f"slot-{n}")) for n in (1, 2)] == [["t0000"], ["t0001"]]

    on(create(tmp_path / "sweep", gang=3), story)


def test_gangs_that_die_do_not_count_as_a_slot_that_cannot_start(tmp_path):
    async def story(broker: Broker) -> None:
        for number in range(0, 6 * STARTS, 2):
            await broker.material("slot-0")
            await offer(broker, number, number + 1)
            while len(gang := await jobs(broker, "slot-0")) == 1:  # left over of the last gang
                (job,) = gang.values()
                await broker.report("slot-0", row(job, 1, last=True))
            assert len(gang) == 2
        assert (await broker.status())["fatal"] is None

    on(create(tmp_path / "sweep", gang=2, trials=100), story)


def test_after_an_interrupt_every_member_ends_with_its_epoch(tmp_path):
    folder = create(tmp_path / "sweep", gang=2, trials=2)

    async def story(broker: Broker) -> None:
        await offer(broker, 0, 1)
        gang = await jobs(broker, "slot-0")
        await broker.report("slot-0", row(gang["t0000"], 1))
        await broker.interrupt()
        assert await broker.report("slot-0", row(gang["t0001"], 1)) is False
        assert (await broker.outcome("t0001", SOON))["status"] == "interrupted"
        assert await broker.outcome("t0000", SOON) is None  # told to go on before
        assert await broker.report("slot-0", row(gang["t0000"], 2)) is False
        assert (await broker.outcome("t0000", SOON))["status"] == "interrupted"
        assert [t.status for t in Records.open(folder).trials()] == ["running"] * 2

    on(folder, story)


@pytest.mark.parametrize("gang", [2, 3])
@pytest.mark.parametrize("seed", range(2))
def test_with_slots_that_die_at_random_every_trial_ends_once_and_none_is_charged(
    tmp_path: Path, gang: int, seed: int
):
    """One configuration is poison; any group dies at random, but rarely when it trains alone."""
    folder = create(tmp_path / "sweep", attempts=2, gang=gang, trials=9)
    rng, epochs, poison = np.random.default_rng(seed), 3, "t0004"

    async def slot(broker: Broker, name: str) -> None:
        while True:
            answer = await broker.take(name, 0.05)
            if answer["kind"] == "close":
                return
            members = answer.get("jobs", [])
            assert len({job["epoch"] for job in members}) <= 1 and len(members) <= gang
            epoch = members[0]["epoch"] if members else 0
            while members:
                epoch += 1
                await asyncio.sleep(rng.random() * 0.005)
                lost = len(members) > 1 and rng.random() < 0.1
                if lost or poison in [job["trial_id"] for job in members]:
                    break  # the group dies before this epoch's reports
                told = [await broker.report(name, row(job, epoch, last=epoch == epochs))
                        for job in members]  # fmt: skip
                members = [job for job, go_on in zip(members, told, strict=True) if go_on]

    async def tune(broker: Broker, mine: list[int]) -> None:
        for number in mine:
            await offer(broker, number)
        for number in mine:
            while await broker.outcome(f"t{number:04d}", 0.1) is None:
                pass

    async def story(broker: Broker) -> None:
        monkeys = [asyncio.create_task(slot(broker, f"slot-{n}")) for n in range(2)]
        await asyncio.gather(*(tune(broker, list(range(n, 9, 3))) for n in range(3)))
        await broker.close()
        await asyncio.gather(*monkeys)

    on(folder, story)
    found = {t.trial_id: t for t in Records.open(folder).trials()}
    assert sorted(found) == [f"t{n:04d}" for n in range(9)]
    assert {name for name, one in found.items() if one.status == "failed"} == {poison}
    for one in found.values():
        final = [r for r in rows(folder) if r["trial_id"] == one.trial_id]
        assert [r["status"] != "running" for r in final] == [False] * (len(final) - 1) + [True]
        assert [r["epoch"] for r in final] == list(range(len(final)))
