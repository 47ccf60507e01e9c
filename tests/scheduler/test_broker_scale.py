"""What must hold with thousands of trials: who is woken, what is kept, what is written and when."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from broker_story import ERM, FAIR, create, on, row, rows, take
from optuna.trial import TrialState, create_trial

from analysis.front import front
from ermgap.config import Config
from ermgap.records import Records
from sweeps.recording.events import Events
from sweeps.scheduler.broker import Broker
from sweeps.scheduler.wake_ups import WakeUps
from sweeps.search.sampling import sampler
from sweeps.search.sampling.surrogate import Surrogate
from sweeps.search.searcher import RecordsSearcher


def counting(flags: dict, name: str, looked: dict):
    """A condition that counts how often it is looked at."""

    def look() -> bool:
        looked[name] = looked.get(name, 0) + 1
        return flags.get(name, False)

    return look


def test_a_bell_wakes_those_who_wait_at_it_and_nobody_else():
    async def story() -> None:
        wake_ups, flags, looked = WakeUps(), {}, {}
        names = [f"t{n:04d}" for n in range(1000)]
        tasks = [
            asyncio.create_task(wake_ups.until(name, counting(flags, name, looked), 60.0))
            for name in names
        ]
        await asyncio.sleep(0)
        flags["t0500"] = True
        wake_ups.wake("t0500")
        await tasks[500]
        assert looked == {name: 1 + (name == "t0500") for name in names}
        assert "t0500" not in wake_ups.waiting and len(wake_ups.waiting) == 999
        wake_ups.wake_all()
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in tasks[:500] + tasks[501:])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert wake_ups.waiting == {}

    asyncio.run(story())


def test_who_is_cancelled_while_it_is_woken_wakes_the_next():
    async def story() -> None:
        wake_ups, there = WakeUps(), []
        first, second = (
            asyncio.create_task(wake_ups.until("line", lambda: bool(there), 60.0)) for _ in range(2)
        )
        await asyncio.sleep(0)
        there.append("an entry")
        wake_ups.wake_one("line")
        first.cancel()
        await asyncio.wait_for(second, 10)

    asyncio.run(story())


def test_a_thousand_slots_that_wait_get_a_thousand_offers_one_each(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    folder = create(tmp_path / "sweep", trials=1000)

    async def story(broker: Broker) -> None:
        slots = [asyncio.create_task(take(broker, f"slot-{n}", 60.0)) for n in range(1000)]
        await asyncio.sleep(0)
        for n in range(1000):
            await broker.offer(f"t{n:04d}", ERM)
        jobs = await asyncio.gather(*slots)
        assert [job["trial_id"] for job in jobs] == [f"t{n:04d}" for n in range(1000)]

    on(folder, story)


def test_rows_that_arrive_together_are_each_on_disk_before_their_slot_hears(tmp_path):
    folder = create(tmp_path / "sweep", trials=50)

    async def story(broker: Broker) -> None:
        async def train(n: int) -> None:
            job = await take(broker, f"slot-{n}", 10.0)
            for epoch in (1, 2, 3):
                await broker.report(f"slot-{n}", row(job, epoch, last=epoch == 3))
                there = {(r["trial_id"], r["epoch"]) for r in rows(folder)}
                assert (job["trial_id"], epoch) in there

        for n in range(30):
            await broker.offer(f"t{n:04d}", ERM)
        await asyncio.gather(*(train(n) for n in range(30)))
        await broker.close()

    on(folder, story)
    assert len(rows(folder)) == 30 * 4


def test_ended_trials_leave_no_open_file_and_no_thread_behind(tmp_path, monkeypatch):
    folder = create(tmp_path / "sweep", trials=40)
    monkeypatch.setattr(Events, "_draw", lambda _: None)
    seen = []

    async def story(broker: Broker) -> None:
        for n in range(40):
            await broker.offer(f"t{n:04d}", ERM)
            job = await take(broker, "slot-0")
            await broker.report("slot-0", row(job, 1))
            await broker.report("slot-0", row(job, 2, last=True))
            broker.ledger.events.writer.submit(lambda: None).result()
            seen.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
        assert set(broker.ledger.events.files) <= {"sweep"}
        assert all(trial.config is None for trial in broker.trials.values())
        await broker.close()

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here")
    on(folder, story)
    assert seen[-1] == seen[2]


def test_ends_that_come_faster_than_pictures_share_one_and_each_has_its_hypervolume(
    tmp_path, monkeypatch
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = create(tmp_path / "sweep", trials=6)
    monkeypatch.setattr(
        "sweeps.recording.events.DRAWING_SHARE", 1e-6
    )  # after the first, none until the end
    volumes = []

    async def story(broker: Broker) -> None:
        for n in range(6):
            await broker.offer(f"t{n:04d}", FAIR if n % 2 else ERM)
            job = await take(broker, "slot-0")
            told = row(job, 1, last=True, acc=0.4 + n / 20, max_gap=0.1 + n / 100)
            await broker.report("slot-0", told)
            broker.ledger.events.writer.submit(lambda: None).result()
            volumes.append(front.info(Records.open(folder)).hypervolume)
        await broker.close()

    on(folder, story)
    read = EventAccumulator(str(folder / "tb" / "sweep")).Reload()
    told = [(e.step, e.value) for e in read.Scalars("sweep/hypervolume")]
    assert [step for step, _ in told] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose([value for _, value in told], volumes, rtol=1e-6)
    assert [image.step for image in read.Images("sweep/front")] == [1, 6]


def test_the_front_of_what_was_seen_is_the_front_of_the_records(tmp_path, monkeypatch):
    folder = create(tmp_path / "sweep", trials=8)
    monkeypatch.setattr(Events, "_draw", lambda _: None)

    def same(broker: Broker) -> None:
        shown, read = front.info(broker.ledger.events.live), front.info(Records.open(folder))
        assert shown.points == read.points and shown.hypervolume == read.hypervolume

    async def first(broker: Broker) -> None:
        for n in range(5):
            await broker.offer(f"t{n:04d}", FAIR if n % 2 else ERM)
            job = await take(broker, f"slot-{n}")
            told = row(job, 1, acc=0.3 + n / 20)
            told["dev"]["worst_cell"] = f"de/{n}"
            told["raised_share"] = n / 10
            await broker.report(f"slot-{n}", told)
            if n == 3:
                await broker.failed("slot-3", "t0003", 1, "no number")
            elif n < 3:
                await broker.report(f"slot-{n}", row(job, 2, last=True, acc=0.3 + n / 20))
        same(broker)
        assert all(len(trial.rows) <= 1 for trial in broker.ledger.events.live.trials())
        await broker.close()

    async def second(broker: Broker) -> None:
        same(broker)
        await broker.close()

    on(folder, first)
    on(folder, second)


# The search -----------------------------------------------------------------------------------


def finished(number: int, values: list[float], state=TrialState.COMPLETE):
    made = create_trial(state=state, values=values if state == TrialState.COMPLETE else None)
    made.number = number
    return made


def test_of_many_trials_the_front_and_the_newest_are_looked_at(monkeypatch):
    monkeypatch.setattr(sampler, "MOST", 10)
    rng = np.random.default_rng(0)
    trials = [finished(n, [0.5 + 0.1 * rng.random(), 0.3]) for n in range(100)]
    best = [3, 7, 20]
    for n in best:
        trials[n] = finished(n, [0.9, 0.1])
    trials[99] = finished(99, [], TrialState.PRUNED)
    hyperparameters = [trial.number for trial in sampler.informative(trials, np.array([-1.0, 1.0]))]
    assert len(hyperparameters) == 10 and hyperparameters == sorted(hyperparameters)
    assert set(best) <= set(hyperparameters) and {95, 96, 97, 98, 99} <= set(hyperparameters)
    none = [finished(n, [], TrialState.PRUNED) for n in range(30)]
    assert [t.number for t in sampler.informative(none, np.array([-1.0, 1.0]))] == list(
        range(20, 30)
    )


@pytest.mark.parametrize("most", [8, 1000])
def test_a_fit_and_a_draw_see_a_bounded_number_of_trials(monkeypatch, most):
    monkeypatch.setattr(sampler, "MOST", most)
    sizes, fits, studies = [], [], []
    condition, fit, draw = Surrogate._condition, Surrogate._fit, optuna.samplers.TPESampler
    monkeypatch.setattr(
        Surrogate, "_condition", lambda self: (sizes.append(len(self.y)), condition(self))[1]
    )
    monkeypatch.setattr(
        Surrogate, "_fit", lambda self, hint: (fits.append(len(self.y)), fit(self, hint))[1]
    )
    plain = draw.sample_independent
    monkeypatch.setattr(
        draw,
        "sample_independent",
        lambda self, study, *rest: (studies.append(len(study.trials)), plain(self, study, *rest))[
            1
        ],
    )
    searcher, rng = (
        RecordsSearcher(Config().replace({"sweep.trials": 60})),
        np.random.default_rng(0),
    )
    proposed, running = [], []
    for n in range(45):
        hyperparameters = searcher.suggest(str(n))["hyperparameters"]
        assert hyperparameters not in proposed
        proposed.append(hyperparameters)
        running.append(n)
        if len(running) > 12:
            outcome = {"status": "finished", "acc": rng.random(), "max_gap": rng.random()}
            searcher.on_trial_complete(str(running.pop(0)), outcome)
    if most == 8:
        assert max(sizes) <= 16 and max(studies) <= 16 and len(fits) < len(sizes) / 3
    else:  # as ever
        assert max(sizes) > 30 and max(studies) > 30 and 2 * len(fits) == len(sizes)


def test_distances_in_parts_are_those_of_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = (torch.as_tensor(rng.random((n, 37))) for n in (150, 40))
    scale = torch.as_tensor(0.5 + rng.random(37))
    whole = Surrogate._matern(a, b, scale)
    with torch.no_grad():
        for most in (1, 5000, 10**9):
            monkeypatch.setattr("sweeps.search.sampling.surrogate.DIFFERENCES", most)
            assert torch.equal(Surrogate._matern(a, b, scale), whole)
