"""The broker without Ray: what is committed, who holds what, and how a trial ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from broker_story import ERM, FAIR, SOON, create, on, row, rows, take, trial

from ermgap.records import Records
from sweeps.recording.events import Events
from sweeps.scheduler.broker import Broker


@pytest.fixture
def folder(tmp_path) -> Path:
    return create(tmp_path / "sweep")


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the front costs more than all the rest; test_events.py looks at it."""
    monkeypatch.setattr(Events, "_ended", lambda *_: None)


def test_an_epoch_is_on_disk_before_its_slot_hears_the_answer(folder, monkeypatch):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "slot-0")
        assert (job["trial_id"], job["hyperparameters"]) == ("t0000", ERM)
        assert (job["epoch"], job["attempt"]) == (0, 1)
        assert job["config"]["train"]["lr"] == 0.003
        for epoch in (1, 2):
            assert await broker.report("slot-0", row(job, epoch)) is True
            assert rows(folder)[-1] | {"epoch": epoch, "status": "running"} == rows(folder)[-1]
        assert await broker.report("slot-0", row(job, 3, last=True)) is False
        assert trial(folder, "t0000").status == "finished"
        assert (await broker.outcome("t0000", SOON))["acc"] == 0.5

    on(folder, story)


def test_a_disk_that_refuses_for_a_while_delays_the_answer_and_nobody_else(folder, monkeypatch):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        job, other = await take(broker, "slot-0"), await take(broker, "slot-1")
        append, full = broker.records.append, {"t0000"}

        def refuse(line) -> None:
            if line["trial_id"] in full:
                raise OSError(28, "No space left on device")
            append(line)

        monkeypatch.setattr(broker.records, "append", refuse)
        before = rows(folder)
        answer = asyncio.ensure_future(broker.report("slot-0", row(job, 1)))
        await asyncio.sleep(SOON)
        assert not answer.done() and rows(folder) == before
        full.add("t0002")
        offers = [asyncio.ensure_future(broker.offer("t0002", FAIR)) for _ in range(2)]
        await asyncio.sleep(SOON)
        assert await broker.report("slot-1", row(other, 1)) is True
        full.clear()
        assert await answer is True
        await asyncio.gather(*offers)
        told = [one["trial_id"] for one in rows(folder)[len(before) :]]
        assert told[0] == "t0001" and sorted(told) == ["t0000", "t0001", "t0002"]

    monkeypatch.setattr("sweeps.scheduler.broker.RETRY_S", 0.01)
    on(folder, story)


def test_a_disk_that_refuses_for_long_ends_the_sweep_and_no_configuration(folder, monkeypatch):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "slot-0")

        def refuse(line) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(broker.records, "append", refuse)
        assert await broker.report("slot-0", row(job, 1)) is False
        assert "No space left on device" in (await broker.status())["fatal"]
        assert "--resume" in (await broker.status())["fatal"]
        await broker.offer("t0001", FAIR)
        for trial_id in ("t0000", "t0001"):
            assert (await broker.outcome(trial_id, SOON))["status"] == "interrupted"
        assert trial(folder, "t0000").status == "running"

    monkeypatch.setattr("sweeps.scheduler.broker.RETRY_S", 0.01)
    monkeypatch.setenv("ERMGAP_STORAGE_PATIENCE_S", "0.05")
    on(folder, story)


def test_a_lost_checkpoint_sends_its_configuration_back_an_epoch_and_costs_no_attempt(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "slot-0")
        for epoch in (1, 2):
            await broker.report("slot-0", row(job, epoch))
        for epoch in (2, 1):  # a new group each time; the checkpoint cannot be read
            job = await take(broker, "slot-0")
            assert (job["epoch"], job["attempt"]) == (epoch, 2)
            await broker.checkpoint_lost("slot-0", "t0000", 2, "checkpoint is damaged")
        job = await take(broker, "slot-0")
        assert (job["epoch"], job["attempt"]) == (0, 2)
        await broker.report("slot-0", row(job, 1))
        await broker.checkpoint_lost("slot-0", "t0000", 1, "of an attempt that is over")
        assert trial(folder, "t0000").epoch == 1
        assert [one["attempt"] for one in trial(folder, "t0000").rows[-1:]] == [2]

    on(folder, story)


def test_a_slot_that_asks_while_it_holds_one_gets_it_again_from_its_last_epoch(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        job = await take(broker, "slot-0")
        await broker.report("slot-0", row(job, 1))
        await broker.report("slot-0", row(job, 2))
        again = await take(broker, "slot-0")
        assert again == job | {"attempt": 2, "epoch": 2}
        assert await broker.report("slot-0", row(again, 3, last=True)) is False
        assert (await broker.outcome("t0000", SOON))["status"] == "finished"
        assert (await take(broker, "slot-0"))["trial_id"] == "t0001"

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
            job = await take(broker, "slot-0")
            assert (job["trial_id"], job["attempt"]) == ("t0000", number)
            await broker.trouble("slot-0", "t0000", f"Boom: number {number}")
            await broker.trouble("slot-0", "t0000", "RuntimeError: connection closed by peer")
        assert (await take(broker, "slot-0"))["trial_id"] == "t0001"
        outcome = await broker.outcome("t0000", SOON)
        assert outcome["status"] == "failed" and f"Boom: number {attempts}" in outcome["reason"]
        assert trial(folder, "t0000").reason == outcome["reason"]
        assert (await broker.status())["reasons"] == {"t0000": outcome["reason"]}

    on(folder, story)


def test_a_worker_that_dies_without_a_word_is_said_to_have_died(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await take(broker, "slot-0")
        await broker.trouble("slot-0", "t0000", "Boom")  # of the first attempt only
        await take(broker, "slot-0")
        await take(broker, "slot-0")
        assert "process died" in trial(folder, "t0000").reason

    on(folder, story)


def test_reports_of_an_older_attempt_or_of_another_slot_are_refused_without_a_row(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        await broker.offer("t0001", FAIR)
        old = await take(broker, "slot-0")
        other = await take(broker, "slot-1")
        new = await take(broker, "slot-0")
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
        first, second = [await take(broker, f"slot-{n}") for n in range(2)]
        await broker.report("slot-0", row(first, 1))
        await broker.failed("slot-0", "t0000", 1, "the objective is not finite in epoch 2")
        outcome = await broker.outcome("t0000", SOON)
        assert outcome["reason"] == "the objective is not finite in epoch 2"
        assert (trial(folder, "t0000").status, trial(folder, "t0000").epoch) == ("failed", 2)
        assert await broker.report("slot-1", row(second, 1)) is True
        assert (await broker.status())["running"] == {"t0001": 1}
        assert await take(broker, "slot-0") == {"kind": "wait"}

    on(folder, story)


def test_a_configuration_that_is_refused_fails_without_bothering_a_slot(folder):
    async def story(broker: Broker) -> None:
        await broker.offer("t0000", FAIR | {"lambda_max": -1.0})
        outcome = await broker.outcome("t0000", SOON)
        assert outcome["status"] == "failed" and "objective.lambda_max" in outcome["reason"]
        assert await take(broker, "slot-0") == {"kind": "wait"}

    on(folder, story)


def test_a_group_gets_the_configuration_the_table_and_the_storage(folder):
    async def story(broker: Broker) -> None:
        setup = await broker.setup("slot-0")
        assert setup["config"] == Records.open(folder).sweep["config"]
        assert setup["table"]["utterance_id"].to_list() == ["u"]
        assert Path(setup["storage"]) == folder and Path(setup["storage"]).is_absolute()

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
        erm = await take(broker, "slot-0")
        await broker.report("slot-0", row(erm, 1, w_f1=0.6, last=True))
        await broker.offer("t0001", FAIR)
        job = await take(broker, "slot-0")
        assert await broker.report("slot-0", row(job, 1, acc=0.1, w_f1=0.01)) is True
        assert trial(folder, "t0001").status == "running"
        await broker.report("slot-0", row(job, 2, acc=acc, w_f1=w_f1, last=True))
        assert (await broker.outcome("t0001", SOON))["status"] == status
        assert trial(folder, "t0001").status == status

    on(folder, story)


def test_erm_s_best_is_remembered_by_the_next_broker(folder):
    async def first(broker: Broker) -> None:
        await broker.offer("t0000", ERM)
        job = await take(broker, "slot-0")
        await broker.report("slot-0", row(job, 1, w_f1=0.8, last=True))

    async def second(broker: Broker) -> None:
        await broker.offer("t0001", FAIR)
        job = await take(broker, "slot-0")
        await broker.report("slot-0", row(job, 1, w_f1=0.35, last=True))
        assert (await broker.outcome("t0001", SOON))["status"] == "degenerate"

    on(folder, first)
    on(folder, second)


def test_a_new_broker_goes_on_at_the_committed_epoch_and_attempt(folder):
    async def first(broker: Broker) -> None:
        for number in range(3):
            await broker.offer(f"t{number:04d}", ERM)
        job = await take(broker, "slot-0")
        await broker.report("slot-0", row(job, 1))
        job = await take(broker, "slot-0")  # its group died: attempt 2
        await broker.report("slot-0", row(job, 2, w_f1=0.7))
        await take(broker, "slot-1")  # took one and committed nothing

    async def second(broker: Broker) -> None:
        for number in range(3):
            await broker.offer(f"t{number:04d}", ERM)
        jobs = [await take(broker, f"slot-{n}") for n in range(3)]
        assert [(job["epoch"], job["attempt"]) for job in jobs] == [(2, 2), (0, 1), (0, 1)]
        assert await broker.report("slot-0", row(jobs[0], 3)) is True
        assert [r["epoch"] for r in trial(folder, "t0000").rows] == [0, 1, 2, 3]
        # The session's end was no fault of the configuration, but its group's death was.
        assert (await take(broker, "slot-0"))["kind"] == "wait"
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
        first, second = [await take(broker, f"slot-{n}") for n in range(2)]
        await broker.report("slot-1", row(second, 1))
        await broker.report("slot-0", row(first, 1, last=True))
        await broker.interrupt()
        await broker.report("slot-1", row(second, 2))
        assert kept.exists() and not gone.exists()

    on(folder, story)
