"""With `sweep.trunks` the search tunes ERM first, then branches on the best of it."""

from __future__ import annotations

import pytest
from search_session import Session, records, settings

from sweeps.search import space
from sweeps.search.branches import silent_epochs

SHARED = ("lr", "lora_r", "lora_dropout")


def by_number(session: Session) -> list[dict]:
    return list(session.proposals().values())


@pytest.mark.parametrize("sampler", ["random", "tpe", "front"])
@pytest.mark.parametrize(("trunks", "budget", "share"), [(1, 14, 0.2), (2, 14, 0), (3, 30, 0.5)])
def test_erm_comes_first_and_every_other_trial_has_the_settings_of_one_of_the_best(
    sampler, trunks, budget, share
):
    budget = min(budget, 16) if sampler == "front" else budget
    config = settings(sampler=sampler, trunks=trunks, trials=budget, erm_share=share)
    session = Session(config, slots=1, timing=0)
    proposed = by_number(session)
    erm = [number for number, made in enumerate(proposed) if made["loss"] == "erm"]
    assert len(erm) >= max(trunks, share * budget) and erm[0] == 0
    assert erm == [0, *range(2, len(erm) + 1)], "the paper's trial is the second"
    tried = {tuple(proposed[number][name] for name in SHARED) for number in erm}
    bases = [
        tuple(made[name] for name in SHARED)
        for made in proposed[erm[-1] + 1 :]
        if made["loss"] != "reweight"  # it has nothing else that could differ
    ]
    assert set(bases) <= tried
    ended = sorted(
        (-trial.selected["acc"], tuple(trial.hyperparameters[name] for name in SHARED))
        for trial in session.trials.values()
        if trial.hyperparameters["loss"] == "erm" and trial.status == "finished"
    )
    best = {base for _, base in ended[:trunks]}
    # The first ones may not know how the last ERM trial ends.
    assert set(bases[2:]) <= best
    assert len(set(bases[2:])) >= min(2, trunks, len(best))


def test_no_configuration_is_trained_twice():
    for losses in (["erm", "reweight"], ["erm", "reweight", "minmaxgap", "groupdro", "vrex"]):
        config = settings(trunks=1, sampler="random", trials=30, space={"loss": losses})
        proposed = by_number(Session(config, slots=1, timing=0))
        assert len({repr(made) for made in proposed}) == len(proposed) == 30
        paired = {made["lr"] for made in proposed if made["loss"] == "erm"}
        assert [made["lr"] in paired for made in proposed if made["loss"] == "reweight"][0]


def test_a_schedule_of_a_trial_with_a_trunk_begins_after_an_epoch_at_least():
    config = settings(trunks=1, sampler="random", trials=60)
    proposed = by_number(Session(config, slots=1, timing=0))
    branches = [made for made in proposed[2:] if "schedule" in made]
    assert len(branches) > 10
    for made in branches:
        assert 1 <= silent_epochs(space.apply(made, config)) <= config.train.epochs / 2


@pytest.mark.parametrize("sampler", ["random", "front"])
def test_a_sweep_with_trunks_that_was_killed_proposes_what_an_uninterrupted_one_does(sampler):
    config = settings(sampler=sampler, trunks=2, trials=12)
    whole = Session(config, slots=2, timing=0).proposals()
    for ends in (2, 7):
        first = Session(config, slots=2, timing=1, ends=ends)
        again = Session(config, slots=2, timing=2, trials=records(first, lost=True))
        assert again.proposals() == whole


def test_a_trial_of_a_version_that_did_not_search_the_sides_is_learnt_from():
    config = settings(sampler="random", trials=20)
    session = Session(config, slots=1, timing=0)
    old = [trial for trial in records(session, lost=False)]
    for trial in old:
        trial.hyperparameters.pop("sides", None)
    completed = [space.completed(trial, config) for trial in old]
    assert any("sides" in trial.hyperparameters for trial in completed)
    for trial in completed[2:]:
        assert space.inside(trial.hyperparameters, config)
        assert trial.hyperparameters.get("sides", "both") == "both"


def test_with_one_epoch_there_is_no_branch_and_no_error():
    config = settings(trunks=1, sampler="random", trials=20).replace({"train.epochs": 1})
    for made in by_number(Session(config, slots=1, timing=0)):
        assert silent_epochs(space.apply(made, config)) == 0
