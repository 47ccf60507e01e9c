"""Syne Tune's multi-objective searches on the problems of `search_problems.py`, trial by trial.

    .venv-peers-search/bin/python tests/benchmarks/search_syne_tune.py MOASHA zdt1 0     # a seed

Runs in an environment of its own (`make peers`): syne-tune without what it pulls, and botorch.
Prints one line of JSON: [[epochs spent, [true objectives]], ...] of the trials that ended.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import sys

import numpy as np
from search_problems import TRIALS, trial_seed


def moasha(space: dict, names: list[str], seed: int, epochs: int):
    """Successive halving over non-dominated sorting (Schmucker et al. 2021), as it comes."""
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

    return MOASHA(space, metrics=names, time_attr="epoch", max_t=epochs, random_seed=seed)


def evolution(space: dict, names: list[str], seed: int, epochs: int):
    """Regularised evolution by non-dominated sorting; a population that fits the budget."""
    from syne_tune.optimizer.schedulers.multiobjective import MultiObjectiveRegularizedEvolution
    from syne_tune.optimizer.schedulers.single_fidelity_scheduler import SingleFidelityScheduler

    searcher = MultiObjectiveRegularizedEvolution(space, population_size=10, sample_size=5,
                                                  random_seed=seed)  # fmt: skip
    return SingleFidelityScheduler(space, metrics=names, searcher=searcher, random_seed=seed)


def ehvi(space: dict, names: list[str], seed: int, epochs: int):
    """BoTorch's expected hypervolume improvement."""
    from syne_tune.optimizer.baselines import EHVI

    return EHVI(space, metrics=names, random_seed=seed)


SCHEDULERS = {"MOASHA": moasha, "MO-REA": evolution, "EHVI": ehvi}


def space_of(problem) -> dict:
    """The problem's variables as Syne Tune's domains."""
    from syne_tune.config_space import choice, loguniform, uniform

    return {
        name: choice(given["choices"])
        if "choices" in given
        else (loguniform if given["log"] else uniform)(given["low"], given["high"])
        for name, given in problem.space.items()
    }


def run(scheduler, problem, seed: int) -> list[tuple[int, list[float]]]:
    """Trials one after another until the budget is spent."""
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer.scheduler import SchedulerDecision

    names = [f"f{j}" for j in range(problem.objectives)]
    budget, spent, number, ended = TRIALS * problem.epochs, 0, 0, []
    whole = not hasattr(scheduler, "brackets")  # hears of the last epoch alone
    while spent < budget:
        suggestion = scheduler.suggest()
        trial = Trial(number, dict(suggestion.config), datetime.datetime.now())
        scheduler.on_trial_add(trial)
        curve = problem.curve(trial.config, seed=trial_seed(seed, number))
        for epoch, values in enumerate(curve, start=1):
            spent += 1
            result = dict(zip(names, map(float, values), strict=True)) | {"epoch": epoch}
            if epoch == problem.epochs:
                scheduler.on_trial_complete(trial, result)
                ended.append((spent, problem.final(trial.config).tolist()))
            elif not whole and scheduler.on_trial_result(trial, result) != (
                SchedulerDecision.CONTINUE
            ):
                scheduler.on_trial_remove(trial)
                break
            if spent >= budget:
                break
        number += 1
    return ended


def main() -> None:
    """One scheduler, one problem, one seed."""
    import search_design
    import torch

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # EHVI mixes it with float32 otherwise and fails
    name, which, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    problem = search_design.problems()[which]
    random.seed(seed)  # some of its draws are not from its own generator
    np.random.seed(seed)
    names = [f"f{j}" for j in range(problem.objectives)]
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        scheduler = SCHEDULERS[name](space_of(problem), names, seed, problem.epochs)
        ended = run(scheduler, problem, seed)
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
