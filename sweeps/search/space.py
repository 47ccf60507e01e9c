"""The hyperparameters of a sweep: key in the configuration, range, and when each counts.

One registry line each. A preset narrows a range under `sweep.space`: a pair of numbers or a list of
choices instead of the default, or `false` to keep the configuration's own value.

    SPACE["eta"] = Parameter("objective.eta", Range(0.1, 100, log=True), used("eta"))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from ermgap.config import Config, losses
from ermgap.errors import UserError
from ermgap.records import Trial
from ermgap.registry import Registry


@dataclass(frozen=True)
class Range:
    """Numbers from low to high."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Around:
    """Numbers around the configuration's own value: from value / factor to value * factor, log."""

    factor: float


@dataclass(frozen=True)
class Choice:
    """One of these."""

    options: tuple


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter; `when` sees the values before it (registry order).

    `values` may be a function of the configuration, where another setting decides the unit.
    """

    key: str
    values: Range | Around | Choice | Callable[[Config], Range | Choice]
    when: Callable[[Mapping], bool] = lambda hyperparameters: True

    def of(self, config: Config) -> Range | Around | Choice:
        """The range under this configuration."""
        return self.values(config) if callable(self.values) else self.values


def used(name: str) -> Callable[[Mapping], bool]:
    """Whether the loss or the schedule of some hyperparameters reads the one called `name`."""

    def when(hyperparameters: Mapping) -> bool:
        loss = losses.LOSSES.get(hyperparameters.get("loss"))
        schedule = losses.SCHEDULES.get(hyperparameters.get("schedule"))
        return any(facts and name in facts.hyperparameters for facts in (loss, schedule))

    return when


def free(name: str) -> Callable[[Mapping], bool]:
    """As `used`, of what the unbiased estimator fixes: it is a square, and moves both sides."""
    return lambda values: used(name)(values) and values.get("estimator") != "unbiased"


def tolerated(config: Config) -> Range:
    """The range of epsilon, in the unit of the gap that the schedule follows: fraction or nats."""
    return Range(0, 0.5) if config.objective.gap == "loss" else Range(0, 0.05)


def scheduled(config: Config) -> Choice:
    """The schedules; with trunks, those that are 0 until their `start`: a branch begins there."""
    names = losses.SCHEDULES.items()
    return Choice(
        tuple(
            n for n, facts in names if not config.sweep.trunks or "start" in facts.hyperparameters
        )
    )


def starting(config: Config) -> Range:
    """The range of `start`; with trunks, from the first epoch on, if there is more than one."""
    return Range(min(1 / config.train.epochs, 0.5) if config.sweep.trunks else 0, 0.5)


SPACE = Registry("hyperparameter")
SPACE["loss"] = Parameter("objective.loss", Choice(tuple(losses.LOSSES)))
SPACE["schedule"] = Parameter("objective.schedule", scheduled, used("schedule"))
SPACE["lambda_max"] = Parameter(
    "objective.lambda_max", Range(0.003, 10, log=True), used("lambda_max")
)
SPACE["start"] = Parameter("objective.start", starting, used("start"))
SPACE["ramp"] = Parameter("objective.ramp", Range(0.1, 1), used("ramp"))
SPACE["eta"] = Parameter("objective.eta", Range(0.1, 100, log=True), used("eta"))
SPACE["epsilon"] = Parameter("objective.epsilon", tolerated, used("epsilon"))
SPACE["estimator"] = Parameter(
    "objective.estimator", Choice(tuple(losses.ESTIMATORS)), used("estimator")
)
SPACE["sides"] = Parameter("objective.sides", Choice(tuple(losses.SIDES)), free("sides"))
SPACE["relative"] = Parameter("objective.relative", Choice((False, True)), used("relative"))
SPACE["p"] = Parameter("objective.p", Choice((1.0, 2.0)), free("p"))
SPACE["dro_eta"] = Parameter("objective.dro_eta", Range(0.001, 1, log=True), used("dro_eta"))
SPACE["lr"] = Parameter("train.lr", Around(3.0))
SPACE["lora_r"] = Parameter("adapter.r", Choice((8, 16, 32)))
SPACE["lora_dropout"] = Parameter("adapter.dropout", Range(0.0, 0.2))


def distributions(config: Config) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every searched hyperparameter, in registry order.

    Raises:
        UserError: `sweep.space` names an unknown hyperparameter or an impossible range.
    """
    for name in config.sweep.space:
        SPACE.find(name)
    searched = {}
    for name, parameter in SPACE.items():
        default = parameter.of(config)
        given = config.sweep.space.get(name, default)
        if given is not False:
            searched[name] = _distribution(name, given, default, config)
    return searched


def propose(trial: optuna.Trial, config: Config) -> dict:
    """The hyperparameters that Optuna suggests for a trial; conditional ones only if they count."""
    return choose(trial._suggest, distributions(config), unsearched(config))


def choose(
    draw: Callable[[str, BaseDistribution], object],
    searched: Mapping[str, BaseDistribution],
    given: Mapping,
) -> dict:
    """Values by `draw` of each searched hyperparameter that counts under those before it.

    Args:
        searched: as `distributions`. given: as `unsearched`.
    """
    hyperparameters, seen = {}, dict(given)
    for name, distribution in searched.items():
        if SPACE[name].when(seen):
            hyperparameters[name] = seen[name] = draw(name, distribution)
    return hyperparameters


def active(hyperparameters: Mapping, config: Config) -> dict[str, BaseDistribution]:
    """Distributions of the searched hyperparameters among `hyperparameters`."""
    return {name: d for name, d in distributions(config).items() if name in hyperparameters}


def inside(hyperparameters: Mapping, config: Config) -> bool:
    """Whether Optuna could have proposed these values itself, so that it may learn from them."""
    known, values = active(hyperparameters, config), unsearched(config) | dict(hyperparameters)
    wanted = {name for name in distributions(config) if SPACE[name].when(values)}
    return set(known) == wanted and all(contains(d, values[name]) for name, d in known.items())


def completed(trial: Trial, config: Config) -> Trial:
    """A trial with the configuration's own values of what counts and was not searched for it.

    So hyperparameters that a later version searches stand in the trials of an earlier one.
    """
    missing, seen = {}, unsearched(config) | trial.hyperparameters
    for name in distributions(config):
        if name not in seen and SPACE[name].when(seen):
            missing[name] = seen[name] = _value(config, SPACE[name].key)
    return replace(trial, hyperparameters=trial.hyperparameters | missing)


def apply(hyperparameters: Mapping, config: Config) -> Config:
    """The configuration with these hyperparameters in place."""
    return config.replace({_key(name): value for name, value in hyperparameters.items()})


def _key(name: str) -> str:
    """Where a hyperparameter stands in the configuration; a dotted key is meant as it is."""
    return name if "." in name else SPACE.find(name).key


def named_points(config: Config) -> list[dict]:
    """The first trials: ERM, the paper's objective, and `sweep.third_trial` where there is one.

    All have the preset's optimiser.
    """
    optimiser = {
        name: _value(config, parameter.key)
        for name, parameter in SPACE.items()
        if not parameter.key.startswith("objective.")
    }
    paper = {"schedule": "adaptive", "lambda_max": 10.0, "eta": 1.0, "epsilon": 0.02}
    paper |= {"estimator": "batch", "sides": "both", "relative": False, "p": 2.0}
    points = [{"loss": "erm"} | optimiser, {"loss": "minmaxgap"} | paper | optimiser]
    third = config.sweep.third_trial
    return [*points, third | optimiser | third] if third else points


def extremes(config: Config) -> list[dict]:
    """Each searched hyperparameter alone, at both ends of its range or at each of its choices."""
    return [
        {name: value}
        for name, d in distributions(config).items()
        for value in (d.choices if isinstance(d, CategoricalDistribution) else (d.low, d.high))
    ]


def unsearched(config: Config) -> dict:
    """The configuration's own values of hyperparameters that are not searched."""
    return {
        name: _value(config, SPACE[name].key)
        for name, searched in config.sweep.space.items()
        if searched is False
    }


def contains(distribution: BaseDistribution, value) -> bool:
    """Whether a value lies in a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return distribution._contains(distribution.to_internal_repr(value))


def _value(config: Config, key: str):
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _distribution(name: str, given, default, config: Config) -> BaseDistribution:
    if isinstance(given, Around):
        value = _value(config, SPACE[name].key)
        return FloatDistribution(value / given.factor, value * given.factor, log=True)
    if isinstance(given, Range):
        return FloatDistribution(given.low, given.high, log=given.log)
    if isinstance(given, Choice):
        return CategoricalDistribution(given.options)
    if isinstance(given, (list, tuple)) and given:
        if isinstance(default, Choice) and not any(isinstance(v, (list, dict)) for v in given):
            return CategoricalDistribution(tuple(given))
        log = isinstance(default, Around) or (isinstance(default, Range) and default.log)
        try:
            low, high = (float(number) for number in given)
            if math.isfinite(low) and math.isfinite(high):
                return FloatDistribution(low, high, log=log)
        except (TypeError, ValueError):
            pass
    raise UserError(
        f"sweep.space.{name} = {given!r} is not possible: write [low, high], a list of choices, or "
        "false."
    )
