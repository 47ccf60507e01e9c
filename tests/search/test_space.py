"""The space of a sweep: what is searched, where, and when a hyperparameter counts at all."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from ermgap import config
from ermgap.config import Config, losses
from ermgap.errors import UserError
from sweeps.search import searcher, space

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"

# Written from the design, not from the registry: what may and must be there for each family.
ALWAYS = {"loss", "lr", "lora_r", "lora_dropout"}
FAIR = {"schedule", "lambda_max", "relative"}
RISING = {"start", "ramp"}
BY_WEIGHT = {"constant": set(), "linear": RISING, "cosine": RISING, "exponential": RISING,
             "step": {"start"}, "adaptive": {"eta", "epsilon"}}  # fmt: skip
BY_LOSS = {"erm": set(), "reweight": set(), "groupdro": {"dro_eta"}, "vrex": FAIR | {"sides"},
           "minmaxgap": FAIR | {"estimator"}}  # fmt: skip
RANGES = {
    "lambda_max": (0.003, 10),
    "start": (0, 0.5),
    "ramp": (0.1, 1),
    "eta": (0.1, 100),
    "epsilon": (0, 0.05),
    "dro_eta": (0.001, 1),
    "lr": (1e-3, 9e-3),
}
LOG = {"lambda_max", "eta", "lr", "dro_eta"}


def proposals(settings: Config, n: int, seed: int = 0) -> list[dict]:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=seed)
    )
    return [space.propose(study.ask(), settings) for _ in range(n)]


def expected_names(hyperparameters: dict) -> set[str]:
    one_sided = hyperparameters.get("estimator") in ("batch", "ema")
    free = {"p", "sides"} if one_sided else set()
    return (
        ALWAYS
        | BY_LOSS[hyperparameters["loss"]]
        | BY_WEIGHT.get(hyperparameters.get("schedule"), set())
        | free
    )


@pytest.fixture(scope="module")
def many() -> list[dict]:
    return proposals(Config(), 900)


def test_a_hyperparameter_is_proposed_exactly_where_it_counts(many):
    for hyperparameters in many:
        assert set(hyperparameters) == expected_names(hyperparameters)
    assert {hyperparameters["loss"] for hyperparameters in many} == set(BY_LOSS)
    assert {hyperparameters.get("schedule") for hyperparameters in many} == {None, *BY_WEIGHT}


@pytest.mark.parametrize("name", RANGES)
def test_proposals_fill_the_ranges_of_the_design_and_stay_inside(many, name):
    low, high = RANGES[name]
    values = [hyperparameters[name] for hyperparameters in many if name in hyperparameters]
    assert min(values) >= low * (1 - 1e-12) and max(values) <= high * (1 + 1e-12)
    middle = (low * high) ** 0.5 if name in LOG else (low + high) / 2
    below = sum(value < middle for value in values) / len(values)
    assert 0.3 < below < 0.7  # half of the draws on either side, on the right scale


def test_the_design_s_choices_are_all_proposed(many):
    assert {hyperparameters["lora_r"] for hyperparameters in many} == {8, 16, 32}
    assert {hyperparameters["p"] for hyperparameters in many if "p" in hyperparameters} == {
        1.0,
        2.0,
    }
    estimators = {hyperparameters.get("estimator") for hyperparameters in many}
    assert estimators == {None, "batch", "ema", "unbiased"}
    assert {hyperparameters.get("relative") for hyperparameters in many} == {None, False, True}


def test_the_space_holds_every_loss_schedule_and_estimator_that_is_registered():
    from ermgap.objective import ESTIMATORS, LOSSES, SCHEDULES

    known = space.distributions(Config())
    tables = (losses.LOSSES, losses.SCHEDULES, losses.ESTIMATORS)
    for name, registry, table in zip(
        ("loss", "schedule", "estimator"), (LOSSES, SCHEDULES, ESTIMATORS), tables, strict=True
    ):
        ours = {key for key, made in registry.items() if made.__module__.startswith("ermgap.")}
        assert set(known[name].choices) == ours == set(table)


def test_the_tolerated_gap_is_searched_in_the_unit_of_the_gap_that_drives_the_weight():
    in_nats = space.distributions(Config().replace({"objective.gap": "loss"}))["epsilon"]
    assert (in_nats.low, in_nats.high) == (0, 0.5)


def test_every_proposal_is_a_configuration_with_these_values_and_no_other_change(many):
    for hyperparameters in many[:60]:
        made = space.apply(hyperparameters, Config())
        back = {space.SPACE[name].key: value_of(Config(), name) for name in hyperparameters}
        assert made.replace(back) == Config()
        assert {name: value_of(made, name) for name in hyperparameters} == hyperparameters


def value_of(settings: Config, name: str):
    section, key = space.SPACE[name].key.split(".")
    return getattr(getattr(settings, section), key)


def test_the_learning_rate_is_searched_around_the_preset_s_own():
    settings = Config().replace({"train.lr": 5e-5})
    values = [hyperparameters["lr"] for hyperparameters in proposals(settings, 100)]
    assert 5e-5 / 3 <= min(values) < 3e-5 and 8e-5 < max(values) <= 15e-5 * (1 + 1e-12)


def test_a_preset_narrows_ranges_and_takes_hyperparameters_out():
    settings = config.load(PRESETS / "demo.yaml")
    points = proposals(settings, 200)
    weights = [
        hyperparameters["lambda_max"]
        for hyperparameters in points
        if "lambda_max" in hyperparameters
    ]
    assert 0.01 <= min(weights) and max(weights) <= 3.0
    assert all({"lora_r", "lora_dropout"}.isdisjoint(hyperparameters) for hyperparameters in points)
    assert space.apply(points[0], settings).adapter == settings.adapter


def test_a_list_replaces_the_choices_and_fixing_one_keeps_the_configuration_s_value():
    settings = Config().replace(
        {
            "objective.loss": "minmaxgap",
            "sweep.space": {"loss": False, "schedule": ["linear"], "lora_r": [4], "lr": [1, "2e0"]},
        }
    )
    for hyperparameters in proposals(settings, 20):
        assert set(hyperparameters) == expected_names(hyperparameters | {"loss": "minmaxgap"}) - {
            "loss"
        }
        assert (hyperparameters["schedule"], hyperparameters["lora_r"]) == (
            "linear",
            4,
        ) and 1 <= hyperparameters["lr"] <= 2
        assert space.apply(hyperparameters, settings).objective.loss == "minmaxgap"


def test_fixing_erm_leaves_no_weight_to_search():
    settings = Config().replace({"sweep.space": {"loss": False}})
    assert all(
        set(hyperparameters) == ALWAYS - {"loss"} for hyperparameters in proposals(settings, 10)
    )


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("lr", [3, 1]),
        ("lr", [0, 1]),
        ("lr", [1]),
        ("lr", [1, 2, 3]),
        ("lr", ["low", "high"]),
        ("lr", True),
        ("lr", 0.1),
        ("lr", []),
        ("lr", [float("nan"), 1]),
        ("lr", [1, float("inf")]),
        ("lambda_max", "wide"),
        ("lora_r", []),
        ("lora_r", [[8]]),
        ("lora_r", 8),
        ("start", None),
    ],
)
def test_an_impossible_range_is_refused_by_its_key(name, given):
    settings = Config().replace({"sweep.space": {name: given}})
    with pytest.raises(UserError) as refused:
        space.distributions(settings)
    assert f"sweep.space.{name}" in str(refused.value) and "\n" not in str(refused.value)


def test_an_unknown_hyperparameter_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="'lambda_mx'.*'lambda_max'"):
        space.distributions(Config().replace({"sweep.space": {"lambda_mx": [1, 2]}}))


@pytest.mark.parametrize("preset", ["demo", "small", "paper"])
def test_the_first_points_are_erm_and_the_paper_s_objective_with_the_preset_s_optimiser(preset):
    settings = config.load(PRESETS / f"{preset}.yaml")
    erm, paper, *_ = (space.apply(point, settings) for point in space.named_points(settings))
    assert erm.objective.loss == "erm"
    objective = paper.objective
    assert (objective.loss, objective.schedule, objective.p) == ("minmaxgap", "adaptive", 2.0)
    assert (objective.epsilon, objective.lambda_max, objective.lambda_0) == (0.02, 10.0, 0.0)
    for point in (erm, paper):
        assert (point.train, point.adapter) == (settings.train, settings.adapter)


@pytest.mark.parametrize("seed", range(3))
def test_what_optuna_proposed_lies_inside_and_what_it_could_not_have_does_not(seed):
    for hyperparameters in proposals(Config(), 40, seed):
        assert space.inside(hyperparameters, Config())
        assert not space.inside(hyperparameters | {"lr": 1.0}, Config())
        without = {name: value for name, value in hyperparameters.items() if name != "lr"}
        assert not space.inside(without, Config())
        assert not space.inside(hyperparameters | {"lora_r": 5}, Config())


def test_the_paper_s_point_lies_outside_a_preset_that_searches_smaller_weights():
    settings = config.load(PRESETS / "demo.yaml")
    erm, paper, _ = space.named_points(settings)
    assert space.inside(erm, settings) and not space.inside(paper, settings)
    wide = settings.replace({"sweep.space": {"lambda_max": [0.003, 10.0]}})
    assert not space.inside(space.named_points(wide)[1], wide)  # no schedule of a branch
    free = wide.replace({"sweep.trunks": 0})
    assert space.inside(space.named_points(free)[1], free)


@pytest.mark.parametrize("preset", ["demo", "small"])
def test_the_third_point_of_a_preset_moves_the_worse_side_alone_and_may_be_any(preset):
    settings = config.load(PRESETS / f"{preset}.yaml")
    third = space.apply(space.named_points(settings)[2], settings)
    assert (third.objective.sides, third.objective.p) == ("worse", 1.0)
    assert (third.train, third.adapter) == (settings.train, settings.adapter)
    assert len(space.named_points(settings.replace({"sweep.third_trial": {}}))) == 2
    other = settings.replace({"sweep.third_trial": {"loss": "groupdro", "lr": 0.001}})
    assert space.apply(space.named_points(other)[2], other).train.lr == 0.001


def test_a_third_trial_of_an_unknown_hyperparameter_is_refused():
    wrong = Config().replace({"sweep.third_trial": {"loss": "minmaxgap", "weigth": 1}})
    with pytest.raises(UserError, match="'weigth'"):
        searcher.require_space(wrong)


def test_the_extremes_are_both_ends_of_each_range_and_every_choice():
    points = space.extremes(Config())
    assert {"start": 0.0} in points and {"start": 0.5} in points
    assert [point for point in points if "lora_r" in point] == [{"lora_r": r} for r in (8, 16, 32)]
    assert {name for point in points for name in point} == set(space.SPACE)
