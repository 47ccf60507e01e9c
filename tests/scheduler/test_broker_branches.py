"""The broker without Ray: which trial begins as a branch, and what becomes of trunks."""

from __future__ import annotations

from pathlib import Path

import pytest
from broker_story import SOON, create, on, row, rows, take, trial

from ermgap.records import Records
from sweeps.recording.events import Events
from sweeps.scheduler.broker import Broker
from sweeps.search.stopping import curve

TRUNK = {"loss": "erm", "lr": 0.003}
FAIR = {"loss": "minmaxgap", "schedule": "step", "start": 0.5, "lambda_max": 0.3, "lr": 0.003}
OTHER = FAIR | {"lr": 0.001}  # of no trunk
EPOCHS = 6  # by default, so FAIR branches after the third


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Events, "_ended", lambda *_: None)


def stored(folder: Path, trial_id: str, epochs) -> None:
    """Files where a worker writes its checkpoints."""
    for epoch in epochs:
        path = folder / "checkpoints" / trial_id / f"epoch-{epoch:04d}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def report(job: dict, epoch: int) -> dict:
    branch = job["branch_from"]
    return row(job, epoch, last=epoch == EPOCHS, acc=0.1 * epoch) | {"branch_from": branch}


async def trained(broker: Broker, folder: Path, job: dict, *, to: int = EPOCHS) -> None:
    first = job["epoch"] or (job["branch_from"] or {"epoch": 0})["epoch"]
    for epoch in range(first + 1, to + 1):
        stored(folder, job["trial_id"], [epoch])
        await broker.report("slot-0", report(job, epoch))


async def offered(broker: Broker, trial_id: str, hyperparameters: dict) -> dict:
    await broker.offer(trial_id, hyperparameters)
    return await take(broker, "slot-0")


def test_a_trial_of_equal_settings_begins_from_the_trunk_and_others_from_their_start(tmp_path):
    folder = create(tmp_path / "sweep", trunks=1, trials=9)

    async def story(broker: Broker) -> None:
        trunk = await offered(broker, "t0000", TRUNK)
        assert (trunk["branch_from"], trunk["keep"]) == (None, 3)
        await trained(broker, folder, trunk)
        job = await offered(broker, "t0001", OTHER)
        assert (job["branch_from"], job["keep"]) == (None, 0)
        await trained(broker, folder, job)
        for number, (start, epoch) in enumerate([(0.5, 3), (0.4, 2), (0.17, 1)], start=2):
            job = await offered(broker, f"t{number:04d}", FAIR | {"start": start})
            assert job["branch_from"] == {"trial": "t0000", "epoch": epoch}
            await trained(broker, folder, job)
        job = await offered(broker, "t0005", FAIR | {"start": 0.1})
        assert job["branch_from"] is None  # its first epoch has a fairness weight already
        await trained(broker, folder, job)
        assert (folder / "checkpoints" / "t0000").exists()
        assert not (folder / "checkpoints" / "t0002").exists()

    on(folder, story)
    branch = trial(folder, "t0003")
    assert branch.branch_from == {"trial": "t0000", "epoch": 2}
    assert [made["epoch"] for made in branch.rows] == [0, 1, 2, 3, 4, 5, 6]
    assert [made["trial_id"] for made in branch.rows[:4]] == ["t0003", "t0000", "t0000", "t0003"]
    Records.open(folder).consolidate()
    import pandas as pd

    flat = pd.read_parquet(folder / "trials.parquet")
    assert len(flat) == len(rows(folder)), "a row of a trunk counts once"


def test_without_trunks_nothing_is_kept_and_nothing_branches(tmp_path):
    folder = create(tmp_path / "sweep", trials=2)

    async def story(broker: Broker) -> None:
        job = await offered(broker, "t0000", TRUNK)
        assert job["keep"] == 0
        await trained(broker, folder, job)
        assert not (folder / "checkpoints" / "t0000").exists()
        assert (await offered(broker, "t0001", FAIR))["branch_from"] is None

    on(folder, story)


def test_named_points_keep_what_they_need(tmp_path):
    points = {"erm": TRUNK, "early": FAIR | {"start": 0.2}, "late": FAIR, "other": OTHER,
              "erm of the other seed": TRUNK | {"train.seed": 5},
              "impossible": FAIR | {"train.epochs": 0}}  # fmt: skip
    folder = create(tmp_path / "sweep", points=points, trials=6)

    async def story(broker: Broker) -> None:
        trunk = await offered(broker, "t0000", points["erm"])
        assert trunk["keep"] == 3
        await trained(broker, folder, trunk)
        other = await offered(broker, "t0004", points["erm of the other seed"])
        assert other["keep"] == 0
        await trained(broker, folder, other)
        job = await offered(broker, "t0001", points["early"])
        assert job["branch_from"] == {"trial": "t0000", "epoch": 1}

    on(folder, story)


def test_after_a_kill_branches_begin_from_the_trunks_of_the_session_before(tmp_path):
    folder = create(tmp_path / "sweep", trunks=1, trials=4)

    async def before(broker: Broker) -> None:
        await trained(broker, folder, await offered(broker, "t0000", TRUNK))
        job = await offered(broker, "t0001", FAIR)
        await trained(broker, folder, job, to=4)  # and the driver is killed

    async def after(broker: Broker) -> None:
        job = await offered(broker, "t0001", FAIR)
        assert (job["epoch"], job["branch_from"]) == (4, {"trial": "t0000", "epoch": 3})
        await trained(broker, folder, job)
        job = await offered(broker, "t0002", FAIR | {"lambda_max": 1.0})
        assert job["branch_from"] == {"trial": "t0000", "epoch": 3}
        await trained(broker, folder, job)
        assert (folder / "checkpoints" / "t0000").exists()

    on(folder, before)
    on(folder, after)


@pytest.mark.parametrize("interrupted", [False, True])
def test_trunks_are_removed_with_the_last_trial_and_kept_for_a_resume(tmp_path, interrupted):
    folder = create(tmp_path / "sweep", trunks=1, trials=2)

    async def story(broker: Broker) -> None:
        await trained(broker, folder, await offered(broker, "t0000", TRUNK))
        job = await offered(broker, "t0001", FAIR)
        await trained(broker, folder, job, to=4 if interrupted else EPOCHS)
        await broker.close()

    on(folder, story)
    assert (folder / "checkpoints" / "t0000").exists() == interrupted


def test_a_trial_whose_trunk_is_lost_is_trained_from_its_start(tmp_path):
    folder = create(tmp_path / "sweep", trunks=1, trials=4)

    async def story(broker: Broker) -> None:
        await trained(broker, folder, await offered(broker, "t0000", TRUNK))
        job = await offered(broker, "t0001", FAIR)
        await broker.checkpoint_lost("slot-0", "t0001", job["attempt"], "checkpoint is missing")
        job = await take(broker, "slot-0")
        assert (job["epoch"], job["branch_from"], job["attempt"]) == (0, None, 1)
        await trained(broker, folder, job)
        assert (await broker.outcome("t0001", SOON))["status"] == "finished"
        job = await offered(broker, "t0002", FAIR | {"lambda_max": 1.0})
        assert job["branch_from"] is None

    on(folder, story)
    assert [made["trial_id"] for made in trial(folder, "t0001").rows] == ["t0001"] * 7


def test_a_branch_that_loses_its_own_checkpoints_goes_back_to_its_trunk_at_most(tmp_path):
    folder = create(tmp_path / "sweep", trunks=1, trials=4)

    async def story(broker: Broker) -> None:
        await trained(broker, folder, await offered(broker, "t0000", TRUNK))
        job = await offered(broker, "t0001", FAIR)
        await trained(broker, folder, job, to=5)
        for epoch in (5, 4):  # neither can be read
            job = await take(broker, "slot-0")
            assert job["epoch"] == epoch
            await broker.checkpoint_lost("slot-0", "t0001", job["attempt"], "damaged")
        job = await take(broker, "slot-0")
        assert (job["epoch"], job["branch_from"]) == (0, {"trial": "t0000", "epoch": 3})
        await trained(broker, folder, job)

    on(folder, story)
    assert [made["epoch"] for made in trial(folder, "t0001").rows] == [0, 1, 2, 3, 4, 5, 6]


def test_the_curve_of_a_branch_holds_the_rungs_of_its_trunk(tmp_path):
    folder = create(tmp_path / "sweep", trunks=1, trials=4, stop_after=1, stop_factor=2)

    async def story(broker: Broker) -> None:
        await trained(broker, folder, await offered(broker, "t0000", TRUNK))
        job = await offered(broker, "t0001", FAIR)
        await trained(broker, folder, job)
        outcome = await broker.outcome("t0001", SOON)
        shown = curve(trial(folder, "t0001").rows, broker.config)
        assert outcome["curve"] == shown and len(shown) == 3  # rungs 1 and 2 of it, 4 its own

    on(folder, story)
