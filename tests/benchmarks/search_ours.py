"""This project's search on a problem of `search_problems.py`: the real searcher and stopping rule.

Only training is replaced: a trial's rows are the problem's curve. Peers of Ray Tune and Optuna, in
the same environment, are here too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from search_problems import TRIALS, trial_seed

from ermgap.config import Config, Sweep, Train
from sweeps.search import searcher as search
from sweeps.search import space, stopping

NAMES = ("acc", "max_gap", "max_loss_gap")  # objectives that carry a problem's; the first is -f1
PREFIX = "problem_"  # a variable may be called as a hyperparameter is


@contextmanager
def registered(problem) -> Iterator[dict]:
    """The problem's variables as hyperparameters of the sweep, and no others."""
    before = dict(space.SPACE.items())
    for name, given in problem.space.items():
        values = (
            space.Choice(tuple(given["choices"])) if "choices" in given else space.Range(**given)
        )
        space.SPACE[PREFIX + name] = space.Parameter("no.section", values)
    try:
        yield dict.fromkeys(before, False)
    finally:
        for name in problem.names:
            del space.SPACE[PREFIX + name]


def ours(problem, seed: int, *, trials: int = TRIALS, **sweep) -> list[tuple[int, np.ndarray]]:
    """Our search; `sweep` changes its settings.

    Returns:
        (epochs spent when it ended, true objectives [m]) of every finished trial.
    """
    names, budget, spent, ended = NAMES[: problem.objectives], trials * problem.epochs, 0, []
    with registered(problem) as others:
        config = Config(
            train=Train(epochs=problem.epochs),
            sweep=Sweep(trials=trials, objectives=names, seed=seed, space=others, **sweep),
        )
        searcher, rungs = search.RecordsSearcher(config, points=()), stopping.Rungs(config)
        number = 0
        while spent < budget:
            tune_id = f"tune-{number}"
            offer = searcher.suggest(tune_id)
            x = {
                name.removeprefix(PREFIX): value for name, value in offer["hyperparameters"].items()
            }
            measured = problem.curve(x, seed=trial_seed(seed, number))
            rows, status = [], "finished"
            for epoch, values in enumerate(measured, start=1):
                spent += 1
                signed = dict(zip(names, [-values[0], *values[1:]], strict=True))
                row = {"epoch": epoch, "selected": signed | {"w_f1": 1.0},
                       "dev": {"majority_rate": -np.inf}}  # fmt: skip
                rows.append(row)
                beaten = rungs.beaten(offer["trial_id"], row)
                rungs.note(offer["trial_id"], row)
                if beaten or spent >= budget:
                    status = "stopped" if epoch < problem.epochs else status
                    break
            searcher.on_trial_complete(
                tune_id,
                {"status": status, "curve": stopping.curve(rows, config)} | rows[-1]["selected"],
            )
            if status == "finished":
                ended.append((spent, problem.final(x)))
            number += 1
    return ended


def full_trials(problem, seed: int, ask: Callable, tell: Callable) -> list[tuple[int, np.ndarray]]:
    """A search that hears of finished trials alone: 40 of them."""
    ended = []
    for number in range(TRIALS):
        key, hyperparameters = ask(number)
        tell(key, problem.curve(hyperparameters, seed=trial_seed(seed, number))[-1])
        ended.append(((number + 1) * problem.epochs, problem.final(hyperparameters)))
    return ended


def optuna_alone(problem, seed: int, sampler: optuna.samplers.BaseSampler):
    """Optuna's ask and tell."""
    study = optuna.create_study(directions=["minimize"] * problem.objectives, sampler=sampler)

    def ask(number: int):
        trial = study.ask()
        return trial, {name: trial._suggest(name, d) for name, d in _distributions(problem).items()}

    return full_trials(problem, seed, ask, lambda trial, values: study.tell(trial, list(values)))


def optuna_search(problem, seed: int, sampler: optuna.samplers.BaseSampler | None):
    """Ray Tune's OptunaSearch as it comes; None: its default sampler."""
    from ray.tune.search.optuna import OptunaSearch

    names = [f"f{j}" for j in range(problem.objectives)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        searcher = OptunaSearch(
            space=_distributions(problem),
            metric=names,
            mode=["min"] * len(names),
            sampler=sampler,
            seed=None if sampler else seed,
        )
    return full_trials(
        problem,
        seed,
        lambda number: (str(number), searcher.suggest(str(number))),
        lambda key, values: searcher.on_trial_complete(
            key, dict(zip(names, map(float, values), strict=True))
        ),
    )


def _distributions(problem) -> dict:
    return {
        name: optuna.distributions.CategoricalDistribution(given["choices"])
        if "choices" in given
        else optuna.distributions.FloatDistribution(**given)
        for name, given in problem.space.items()
    }


samplers = optuna.samplers
CONTENDERS: dict[str, Callable] = {
    "ERM-GAP": ours,
    "ERM-GAP, stopping": lambda p, s: ours(p, s, stop_after=math.ceil(0.4 * p.epochs)),
    "random": lambda p, s: optuna_alone(p, s, samplers.RandomSampler(seed=s)),
    "OptunaSearch, TPE": lambda p, s: optuna_search(p, s, None),
    "OptunaSearch, NSGA-II": lambda p, s: optuna_search(p, s, samplers.NSGAIISampler(seed=s)),
    "Optuna, NSGA-II": lambda p, s: optuna_alone(
        p, s, samplers.NSGAIISampler(seed=s, population_size=10)
    ),
}
