"""Twelve trials over long-lived worker groups: each group starts once and trains one by one."""

from __future__ import annotations

import itertools

from real_sweep import SMOKE_TRIALS, RealSweep, rows_of

from ermgap.records import Records


def by_slot(sweep: RealSweep) -> dict[str, list[list[dict]]]:
    """The rows of each trial, grouped by slot, in the order in which the slot trained them."""
    rows = sweep.rows()
    trials = [rows_of(rows, trial_id) for trial_id in sorted({row["trial_id"] for row in rows})]
    slots: dict[str, list[list[dict]]] = {}
    for trained in sorted(trials, key=lambda trained: trained[0]["time"]):
        slots.setdefault(trained[0]["slot"], []).append(trained)
    return slots


def pauses(sweep: RealSweep) -> list[float]:
    """Seconds of each slot between the last epoch of a trial and the first step of the next."""
    return [
        following[0]["time"] - following[0]["seconds"] - trained[-1]["time"]
        for slot in by_slot(sweep).values()
        for trained, following in itertools.pairwise(slot)
    ]


def test_all_twelve_trials_end(smoke: RealSweep) -> None:
    trials = Records.open(smoke.out).trials()
    assert len(trials) == SMOKE_TRIALS
    assert {trial.status for trial in trials} <= {"finished", "degenerate"}
    assert {trial.attempt for trial in trials} == {1}


def test_a_trial_is_trained_by_one_slot_from_its_first_to_its_last_epoch(smoke: RealSweep) -> None:
    slots = by_slot(smoke)
    assert list(slots) and sum(map(len, slots.values())) == SMOKE_TRIALS
    for name, trials in slots.items():
        assert {row["slot"] for trained in trials for row in trained} == {name}


def test_each_slot_starts_its_workers_once_for_the_whole_sweep(smoke: RealSweep) -> None:
    assert len(smoke.trainers) == len(by_slot(smoke))


def test_a_slot_trains_one_trial_after_another(smoke: RealSweep) -> None:
    assert len(pauses(smoke)) == SMOKE_TRIALS - len(by_slot(smoke))
    assert min(pauses(smoke)) >= 0


def test_the_same_configuration_gives_the_same_numbers_in_two_places(smoke: RealSweep) -> None:
    # In its first epoch the paper's adaptive weight is 0, so t0001 trains what t0000 (ERM) does.
    rows = smoke.rows()
    erm, paper = (rows_of(rows, trial_id)[0] for trial_id in ("t0000", "t0001"))
    assert paper["lambda"] == 0
    assert erm["train_loss"] == paper["train_loss"]
    assert erm["dev"] == paper["dev"]
