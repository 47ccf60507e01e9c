"""The same seed, the same trials: whatever ends when, and after a kill, too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from search_session import Session, records, settings

from ermgap.config.losses import LOSSES
from ermgap.records import Trial
from sweeps.search import space
from sweeps.search.searcher import RecordsSearcher

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("slots", "deterministic"), [(1, False), (2, True), (4, True)])
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_the_same_seed_proposes_the_same_however_long_trials_take(sampler, slots, deterministic):
    config = settings(sampler=sampler, deterministic=deterministic)
    told = [Session(config, slots=slots, timing=t).proposals() for t in range(6)]
    assert len(told[0]) == 14 and all(other == told[0] for other in told)


@pytest.mark.parametrize("slots", [1, 3])
def test_the_default_sampler_proposes_the_same_however_long_trials_take(slots):
    config = settings(trials=12)
    told = [Session(config, slots=slots, timing=t).proposals() for t in range(2)]
    assert told[0] == told[1]


def test_without_it_timing_has_its_part_with_several_slots():
    config = settings(sampler="tpe", deterministic=False)
    told = [Session(config, slots=4, timing=t).proposals() for t in range(4)]
    assert any(other != told[0] for other in told)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_sweep_that_was_killed_proposes_what_an_uninterrupted_one_does(sampler, slots, lost):
    config = settings(sampler=sampler)
    whole = Session(config, slots=slots, timing=0).proposals()
    for ends in (0, 1, 2, 5, 9, 13):
        first = Session(config, slots=slots, timing=1, ends=ends)
        again = Session(config, slots=slots, timing=2, trials=records(first, lost=lost))
        assert again.proposals() == whole


def test_killed_twice_the_default_sampler_goes_on_as_if_it_never_was():
    config = settings(trials=12)
    whole = Session(config, slots=2, timing=0).proposals()
    first = Session(config, slots=2, timing=1, ends=7)
    second = Session(config, slots=2, timing=2, ends=10, trials=records(first, lost=True))
    third = Session(config, slots=2, timing=3, trials=records(second, lost=False))
    assert third.proposals() == whole


def test_trials_of_a_sweep_that_was_not_deterministic_do_not_block_one_that_is():
    config = settings(sampler="random", deterministic=False)
    first = Session(config, slots=4, timing=1, ends=5)
    known = [t for t in records(first, lost=False) if t.trial_id not in ("t0003", "t0005")]
    again = Session(config, slots=1, timing=2, trials=known)
    assert again.ended == 14 and len(again.trials) == 14


def test_no_slot_waits_longer_than_the_order_asks():
    """Equal durations: every slot always has a trial, as without a fixed order."""
    searcher = RecordsSearcher(settings(sampler="random"), lag=3)
    live = [searcher.suggest(str(number)) for number in range(3)]
    assert all(live) and searcher.suggest("next") is None
    searcher.on_trial_complete("1", {"status": "failed"})
    assert searcher.suggest("next") is None  # t0000 has not ended
    searcher.on_trial_complete("0", {"status": "failed"})
    assert searcher.suggest("next")["trial_id"] == "t0003"
    assert searcher.suggest("more")["trial_id"] == "t0004"


def of_two_samplers() -> str:
    return repr([Session(settings(sampler=name, trials=12), slots=2, timing=0).proposals()
                 for name in ("tpe", "front")])  # fmt: skip


def test_the_seed_of_hashes_has_no_part_in_it():
    code = (
        "import sys; sys.path[:0] = ['tests/search', 'tests/helpers']; "
        "from test_deterministic import of_two_samplers; print(of_two_samplers())"
    )
    other = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"  # by default it is random
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        check=True, env=os.environ | {"PYTHONHASHSEED": other},
    ).stdout  # fmt: skip
    assert printed.strip() == of_two_samplers()


# Which loss -------------------------------------------------------------------------------------


SPACES = [tuple(LOSSES)[:n] for n in (2, 3, 4, 5)] + [("minmaxgap", "vrex"), tuple(LOSSES)[1:]]
SPACES += [("erm", "groupdro", "vrex")]  # without the loss of the paper's point


@pytest.mark.parametrize("losses", SPACES, ids=lambda losses: "+".join(losses))
@pytest.mark.parametrize("share", [0, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.75, 1])
def test_every_other_loss_gets_an_equal_share_whatever_erm_gets(share, losses):
    for budget, slots in ((40, 1), (17, 3)):
        config = settings(sampler="random", trials=budget, erm_share=share, space={
            "loss": list(losses)})  # fmt: skip
        config = config.replace({"objective.loss": losses[0]})
        for ends in (99, budget // 2):
            session = Session(config, slots=slots, timing=0, ends=ends)
            if ends < budget:  # goes on after a kill, without the order, and from a lost row
                free = config.replace({"sweep.deterministic": False})
                session = Session(free, slots=3, timing=1, trials=records(session, lost=True))
            counts = Counter(
                hyperparameters["loss"] for hyperparameters in session.proposals().values()
            )
            others = [counts[loss] for loss in losses if loss != "erm"]
            assert max(others) - min(others) <= 1
            erm = counts["erm"] if "erm" in losses else share * budget
            assert erm >= min(int(share * budget), budget - 1)


def test_a_sweep_in_which_one_loss_was_neglected_catches_up():
    config = settings(sampler="random", trials=40)
    erm = space.named_points(config)[0]
    known = [
        Trial(f"t{i:04d}", "finished", None, erm | {"loss": loss}, 1, 1, {}, [])
        for i, loss in enumerate(["erm", "minmaxgap", *["groupdro", "vrex", "reweight"] * 4])
    ]
    searcher = RecordsSearcher(config, known)
    losses = [searcher.suggest(str(i))["hyperparameters"]["loss"] for i in range(5)]
    assert Counter(losses) == {"erm": 3, "minmaxgap": 2}


def test_earlier_sweeps_have_no_part_in_the_shares():
    config = settings(sampler="random", trials=20)
    first = Session(config, slots=1, timing=0)
    searcher = RecordsSearcher(config, earlier=records(first, lost=False))
    losses = Counter(searcher.suggest(str(i))["hyperparameters"]["loss"] for i in range(20))
    assert losses == {loss: 4 for loss in LOSSES}
