"""The searcher: what it proposes, under which ids, and what it tells Optuna, after a crash too."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.utils.util import flatten_dict

from ermgap.config import Config
from ermgap.errors import UserError
from ermgap.records import Trial
from sweeps.scheduler import trials
from sweeps.search import space
from sweeps.search.proposals import LimitedStart
from sweeps.search.searcher import SAMPLERS, RecordsSearcher, require_space
from sweeps.train import single


def settings(**sweep) -> Config:
    given = {"trials": 40} | sweep
    return Config().replace({f"sweep.{key}": value for key, value in given.items()})


def measured(seed: int) -> dict:
    draw = random.Random(seed).random
    scores = {"acc": draw(), "w_f1": draw(), "max_gap": draw(), "worst_group_w_f1": draw()}
    return {"status": "finished", "reason": None, "epoch": 3} | scores


def record(trial_id: str, hyperparameters: dict, status: str = "finished", **selected) -> Trial:
    epoch = selected.pop("epoch", 2)
    return Trial(trial_id, status, None, hyperparameters, epoch, 1, selected, [])


FAILED = {"status": "failed", "reason": "it was not finite"}


def run(searcher: RecordsSearcher, n: int, results=measured) -> list[dict]:
    """`n` proposals one after another, each completed with `results(number)`."""
    offers = []
    for number in range(n):
        offers.append(searcher.suggest(f"tune-{number}"))
        searcher.on_trial_complete(f"tune-{number}", results(number))
    return offers


def test_the_two_named_points_come_first_and_ids_count_up():
    offers = run(RecordsSearcher(settings()), 12)
    assert [offer["trial_id"] for offer in offers] == [f"t{i:04d}" for i in range(12)]
    assert [offer["hyperparameters"] for offer in offers[:2]] == space.named_points(settings())


def test_a_sweep_of_one_trial_is_erm_alone():
    searcher = RecordsSearcher(settings(trials=1))
    assert searcher.suggest("a")["hyperparameters"]["loss"] == "erm"
    assert searcher.first == []


@pytest.mark.parametrize(
    ("seed", "share"),
    [
        (0, 0.2),
        (1, 0.5),
        pytest.param(1, 0.2, marks=pytest.mark.slow),
        pytest.param(0, 0.5, marks=pytest.mark.slow),
    ],
)
def test_erm_gets_at_least_its_share_at_every_moment(seed, share):
    offers = run(RecordsSearcher(settings(seed=seed, erm_share=share)), 40)
    erm = 0
    for number, offer in enumerate(offers, start=1):
        erm += offer["hyperparameters"]["loss"] == "erm"
        assert number < 3 or erm >= math.floor(share * number)
    assert erm < 40
    tuned = {
        tuple(offer["hyperparameters"].values())
        for offer in offers
        if offer["hyperparameters"]["loss"] == "erm"
    }
    assert len(tuned) == erm  # the baseline's optimiser is searched, not repeated


def test_a_resumed_search_counts_the_erm_trials_of_the_records_whatever_their_order():
    first, trials = run(RecordsSearcher(settings()), 10), []
    for number, offer in enumerate(first):
        values = {key: measured(number)[key] for key in ("acc", "max_gap")}
        trials.append(record(offer["trial_id"], offer["hyperparameters"], **values))
    expected = sum(offer["hyperparameters"]["loss"] == "erm" for offer in first)
    for order in (trials, trials[::-1]):
        searcher = RecordsSearcher(settings(), order)
        assert (searcher.shares.proposed["erm"], len(searcher.counted), searcher.next_number) == (
            expected,
            10,
            10,
        )


def test_a_search_without_erm_in_its_space_proposes_without_complaint(recwarn):
    for given in (False, ["minmaxgap"]):
        changed = settings(space={"loss": given}).replace({"objective.loss": "minmaxgap"})
        offers = run(RecordsSearcher(changed), 8)
        assert all(
            offer["hyperparameters"].get("loss", "minmaxgap") == "minmaxgap" for offer in offers[2:]
        )
    assert not [w for w in recwarn if "Fixed parameter" in str(w.message)]


def test_unfinished_trials_are_offered_first_as_they_were_and_ended_ones_never():
    points = [offer["hyperparameters"] for offer in run(RecordsSearcher(settings()), 6)]
    trials = [
        record("t0000", points[0], "finished", acc=0.5, max_gap=0.1),
        record("t0001", points[1], "running"),
        record("t0002", points[2], "failed"),
        record("t0003", points[3], "running", epoch=0),
        record("t0004", points[4], "degenerate", acc=0.1, max_gap=0.0),
        record("t0005", points[5], "stopped", acc=0.1, max_gap=0.0),
    ]
    offers = run(RecordsSearcher(settings(), trials), 8)
    assert offers[:2] == [
        {"trial_id": "t0001", "hyperparameters": points[1]},
        {"trial_id": "t0003", "hyperparameters": points[3]},
    ]
    assert [offer["trial_id"] for offer in offers[2:]] == [f"t{i:04d}" for i in range(6, 12)]


@pytest.mark.parametrize("ids", [["t0001"], ["t0000", "t0003"], ["t0005", "t0002"], ["t0000"]])
@pytest.mark.parametrize("status", ["running", "finished"])
def test_ids_stay_unique_when_a_crash_left_gaps(ids, status):
    point = space.named_points(settings())[0]
    trials = [record(name, point, status, acc=0.4, max_gap=0.1) for name in ids]
    offered = [offer["trial_id"] for offer in run(RecordsSearcher(settings(), trials), 10)]
    assert len(set(offered)) == 10
    kept = set(ids) if status == "running" else set()
    assert set(offered) & set(ids) == kept and set(offered[: len(kept)]) == kept


def test_named_points_that_a_crash_swallowed_are_offered_again():
    erm, paper = space.named_points(settings())
    searcher = RecordsSearcher(settings(), [record("t0001", paper, acc=0.4, max_gap=0.1)])
    assert searcher.suggest("a") == {"trial_id": "t0000", "hyperparameters": erm}
    assert searcher.suggest("b")["trial_id"] == "t0002"


BAD = [None, {}, {"status": "finished"}, {"status": "failed", "acc": 0.4, "max_gap": 0.1}] + [
    {"status": "finished", "acc": value, "max_gap": 0.1}
    for value in (None, float("nan"), float("inf"), "0.5")
]


@pytest.mark.parametrize("result", BAD, ids=str)
def test_a_result_without_finite_objectives_becomes_fail_and_no_trial_stays_running(result):
    searcher = RecordsSearcher(settings())
    run(searcher, 4)
    before = len(searcher.study.trials)
    run(searcher, 3, lambda number: result)
    searcher.suggest("last")
    searcher.on_trial_complete("last", None, error=True)
    states = [trial.state for trial in searcher.study.trials[before:]]
    assert states == [TrialState.FAIL] * 4
    assert len(run(searcher, 3)) == 3  # and it goes on proposing


def test_no_trial_is_left_running_when_results_come_back_in_any_order():
    searcher, rng = RecordsSearcher(settings()), random.Random(0)
    open_trials: list[str] = []
    for number in range(30):
        searcher.suggest(f"tune-{number}")
        open_trials.append(f"tune-{number}")
        if len(open_trials) > 3 or number == 29:
            while len(open_trials) > (0 if number == 29 else 2):
                done = open_trials.pop(rng.randrange(len(open_trials)))
                searcher.on_trial_complete(done, rng.choice([measured(number), FAILED]))
    assert TrialState.RUNNING not in {trial.state for trial in searcher.study.trials}
    assert not searcher.asked and not searcher.offered


@pytest.mark.parametrize("live", [True, False], ids=["while it runs", "from the records"])
def test_a_degenerate_point_is_told_as_infeasible_and_never_best(live):
    searcher = RecordsSearcher(settings())
    offers = run(searcher, 3, lambda number: {"status": "finished", "acc": 0.3, "max_gap": 0.2})
    dazzling = {"status": "degenerate", "acc": 0.99, "max_gap": 0.0}
    if live:
        offers += run(searcher, 1, lambda number: dazzling)
    else:
        point = searcher.suggest("a")["hyperparameters"]
        trials = [
            record(offer["trial_id"], offer["hyperparameters"], acc=0.3, max_gap=0.2)
            for offer in offers
        ]
        searcher = RecordsSearcher(
            settings(), [*trials, record("t0003", point, "degenerate", acc=0.99, max_gap=0.0)]
        )
    told = [trial for trial in searcher.study.trials if trial.values == [0.99, 0.0]]
    assert len(told) == 1 and told[0].state == TrialState.COMPLETE
    assert {trial.values[0] for trial in searcher.study.best_trials} == {0.3}


def test_a_named_point_that_is_degenerate_is_told_as_infeasible_too():
    searcher = RecordsSearcher(settings())
    run(searcher, 1, lambda number: {"status": "degenerate", "acc": 0.9, "max_gap": 0.0})
    run(searcher, 3, lambda number: {"status": "finished", "acc": 0.3, "max_gap": 0.2})
    assert {trial.values[0] for trial in searcher.study.best_trials} == {0.3}


def test_an_interrupted_trial_is_not_told():
    searcher = RecordsSearcher(settings())
    run(searcher, 3)
    told = [trial.number for trial in searcher.study.trials if trial.state.is_finished()]
    run(searcher, 2, lambda number: {"status": "interrupted"})
    finished = [trial.number for trial in searcher.study.trials if trial.state.is_finished()]
    assert finished == told


@pytest.mark.parametrize(
    "names",
    [
        ("acc", "max_gap"),
        ("max_gap", "acc"),
        ("w_f1", "max_gap", "worst_group_w_f1"),
        ("max_gap", "worst_group_w_f1", "acc"),
    ],
)
def test_values_are_told_in_the_order_and_direction_of_the_objectives(names):
    searcher = RecordsSearcher(settings(objectives=list(names)))
    offers = run(searcher, 8)
    expected = [[measured(number)[name] for name in names] for number in range(8)]
    assert [trial.values for trial in searcher.study.trials] == expected
    better = [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    assert searcher.study.directions == [better[name == "max_gap"] for name in names]
    trials = [
        record(offer["trial_id"], offer["hyperparameters"], **{n: measured(i)[n] for n in names})
        for i, offer in enumerate(offers)
    ]
    again = RecordsSearcher(settings(objectives=list(names)), trials)
    assert [trial.values for trial in again.study.trials] == expected
    for before, after, offer in zip(searcher.study.trials, again.study.trials, offers, strict=True):
        assert before.params == after.params == offer["hyperparameters"]


def test_a_named_point_outside_the_searched_ranges_is_not_told():
    narrow = settings(space={"lambda_max": [0.01, 3.0]})
    searcher = RecordsSearcher(narrow)
    run(searcher, 5)
    assert [trial.params["loss"] for trial in searcher.study.trials][0] == "erm"
    assert len(searcher.study.trials) == 4
    assert all(trial.params.get("lambda_max", 1) <= 3 for trial in searcher.study.trials)


@pytest.mark.parametrize("given", [{"schedule": ["linear"]}, {"p": [1]}, {"lora_r": [4, 8]}])
def test_a_named_point_outside_the_searched_choices_does_no_harm(given):
    searcher = RecordsSearcher(settings(space=given))
    offers = run(searcher, 6)
    assert len(offers) == 6 and len(searcher.study.trials) < 6


def test_the_same_seed_proposes_the_same_and_another_does_not():
    first, second, other = (
        [offer["hyperparameters"] for offer in run(RecordsSearcher(settings(seed=seed)), 12)]
        for seed in (3, 3, 4)
    )
    assert first == second != other


def test_a_resumed_session_does_not_draw_the_numbers_of_the_first_again():
    first = [
        offer["hyperparameters"] for offer in run(RecordsSearcher(settings(sampler="random")), 10)
    ]
    trials = [
        record(f"t{i:04d}", hyperparameters, acc=0.1 * i, max_gap=0.1)
        for i, hyperparameters in enumerate(first)
    ]
    again = run(RecordsSearcher(settings(sampler="random"), trials), 8)
    assert not [offer for offer in again if offer["hyperparameters"] in first]


def test_an_interrupted_search_proposes_no_more():
    searcher = RecordsSearcher(settings())
    run(searcher, 1)
    searcher.interrupted = True
    assert searcher.suggest("next") == Searcher.FINISHED


def test_a_searcher_of_one_proposes_its_configuration_once_and_not_after_it_ended():
    given = Config().replace({"objective.loss": "minmaxgap", "objective.schedule": "linear"})
    hyperparameters = {"loss": "minmaxgap", "schedule": "linear"}
    searcher = single(given)
    assert searcher.suggest("a") == {"trial_id": "t0000", "hyperparameters": hyperparameters}
    assert searcher.suggest("b") == Searcher.FINISHED
    unfinished = single(given, [record("t0000", hyperparameters, "running")])
    assert unfinished.suggest("a") == {"trial_id": "t0000", "hyperparameters": hyperparameters}
    ended = single(given, [record("t0000", hyperparameters, "failed")])
    assert ended.suggest("a") == Searcher.FINISHED


def given_by_tune(outcome: dict) -> dict:
    """What Tune gives a searcher of what a trial reports: the last result, flattened."""
    reported: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials.tune, "report", reported.update)
        patch.setattr(trials.ray, "get_actor", lambda *_, **__: Broker(outcome))
        patch.setattr(trials.ray, "get", lambda answer: answer)
        trials.serve({"trial_id": "t0000", "hyperparameters": {}}, broker="any")
    return flatten_dict(reported | {"training_iteration": 1})


class Broker:
    """Stands for the broker's actor, and for each of its methods."""

    def __init__(self, outcome: dict) -> None:
        self.offer = SimpleNamespace(remote=lambda *_: None)
        self.outcome = SimpleNamespace(remote=lambda *_: outcome)


def test_outcomes_reach_the_searcher_each_for_its_own_proposal():
    searcher = RecordsSearcher(settings())
    limited = LimitedStart(searcher, slots=4)
    offers = {name: limited.suggest(name) for name in "abcd"}
    limited.on_trial_complete("c", given_by_tune(measured(0) | {"acc": 0.2, "max_gap": 0.02}))
    limited.on_trial_complete("d", given_by_tune({"status": "failed", "reason": "not finite"}))
    ended = {
        (trial.params["loss"], trial.params["lr"]): (trial.state, trial.values)
        for trial in searcher.study.trials
        if trial.state.is_finished()
    }
    names = {name: offer["hyperparameters"] for name, offer in offers.items()}
    assert ended == {
        (names["d"]["loss"], names["d"]["lr"]): (TrialState.FAIL, None),
        (names["c"]["loss"], names["c"]["lr"]): (TrialState.COMPLETE, [0.2, 0.02]),
    }


def test_where_tune_lost_a_trial_it_does_not_stay_open():
    searcher = RecordsSearcher(settings())
    limited = LimitedStart(searcher, slots=2)
    for name in "ab":
        limited.suggest(name)
    limited.on_trial_complete("a", None, error=True)
    limited.on_trial_complete("b", {})
    assert TrialState.RUNNING not in {trial.state for trial in searcher.study.trials}
    assert not searcher.asked and not searcher.offered


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sweep.sampler": "grid"}, "sampler called 'grid'"),
        ({"objective.loss": "groupdr"}, "objective.loss = 'groupdr'"),
        ({"sweep.space": {"nope": [1, 2]}}, "'nope'"),
        ({"sweep.space": {"lr": [2, 1]}}, "sweep.space.lr"),
        ({"sweep.space": {"lr": [-2, -1]}}, "sweep.space.lr"),
        ({"sweep.space": {"ramp": [0, 1]}}, "objective.ramp"),
        ({"sweep.space": {"loss": ["erm", "magic"]}}, "magic"),
        ({"sweep.space": {"schedule": ["linear", "lineer"]}}, "lineer"),
        ({"sweep.space": {"lora_r": [8, 0]}}, "adapter.r"),
        ({"objective.lambda_0": 1.0}, "objective.lambda_0"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(changes, words):
    with pytest.raises(UserError) as refused:
        require_space(Config().replace(changes))
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_the_defaults_can_be_searched():
    require_space(Config())


def test_nothing_is_proposed_ahead_until_something_trains():
    limited, alone = LimitedStart(RecordsSearcher(settings()), slots=2), RecordsSearcher(settings())
    offers = [limited.suggest(name) for name in "ab"]
    assert limited.suggest("c") is None
    limited.on_trial_complete("a", given_by_tune({"status": "failed"}))
    offers.append(limited.suggest("d"))
    assert limited.suggest("e") is None
    limited.started = True
    offers.append(limited.suggest("e"))
    assert [offer["trial_id"] for offer in offers] == [alone.suggest(n)["trial_id"] for n in "abcd"]


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_takes_finished_stopped_failed_and_degenerate_trials(name, recwarn, capfd):
    def mixed(number: int) -> dict:
        status = ("finished", "stopped", "degenerate", "finished", "failed")[number % 5]
        return (FAILED if status == "failed" else measured(number)) | {"status": status}

    given = settings(sampler=name)
    searcher = RecordsSearcher(given)
    offers = run(searcher, 30, mixed)
    assert len({str(offer["hyperparameters"]) for offer in offers}) == 30
    assert all(space.inside(offer["hyperparameters"], given) for offer in offers[2:])
    states = [trial.state for trial in searcher.study.trials]
    assert TrialState.RUNNING not in states and states.count(TrialState.PRUNED) == 6
    assert not [w for w in recwarn if "optuna" in str(w.filename)]
    assert "independently" not in capfd.readouterr().err
    again = RecordsSearcher(
        given,
        [
            record(offer["trial_id"], offer["hyperparameters"], **mixed(number))
            for number, offer in enumerate(offers)
        ],
    )
    assert again.suggest("next")["trial_id"] == "t0030"
