"""Optuna samplers: the default, which looks for where the front may grow most, and `random`.

After a few quasi-random configurations the default fits a Gaussian process to each
objective (sweeps/search/sampling/surrogate.py), from finished and stopped trials alike, and
proposes the configuration with the largest expected improvement of the hypervolume
(sweeps/search/sampling/improvement.py), times the probability that it violates no constraint. Noise
does not count twice: the front to be improved is that of the models' means. Conditional
hyperparameters are part of the model, which Optuna's own Gaussian process draws at random.

In more than a few dimensions a model is least sure at the edges of the space, and a search by it
alone goes there again and again; a model can also be wrong. So proposals take turns: of every four,
two trust the model's means nearly as they are, one weighs what it does not know in full, and one is
drawn near good configurations without any model, by TPE (Bergstra et al. 2011), as Optuna has it.
On the design problems of tests/benchmarks/search_problems.py each of the two turns saved trials.

With more than MOST trials a proposal costs no more than with MOST: what is fitted, and what the
draws near good configurations see, is half of it the trials nearest to the front and half the
newest, and the models' settings are fitted anew when a quarter more trials have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache, partial

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr
from scipy.stats import qmc

from ermgap.config import Config
from sweeps.search.sampling.encoding import Encoding
from sweeps.search.sampling.improvement import expected_improvement
from sweeps.search.sampling.surrogate import Observations, Surrogate
from sweeps.search.stopping import ranks

CURVE = "curve"  # user attribute of a trial: [[share of the training to come, objectives], ...]
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
CANDIDATES = 512
MOST = 200  # observations in a fit; the oldest rungs go first. And trials that are looked at
GROWTH = 1.25  # of the ended trials until the settings of many are fitted anew
TRUSTING = 0.1  # times the model's standard deviation, where a proposal trusts its means


class UniformSampler(optuna.samplers.BaseSampler):
    """Uniform draws: the same configuration for the same seed and trial number.

    So a sweep that was interrupted proposes what an uninterrupted one does.

    Args:
        config: of the sweep: its space and its seed.

    Attributes:
        number: of the trial that is asked for next; whoever asks sets it.
        repeated: what an earlier session proposed for that trial; None for a new proposal.
    """

    def __init__(self, config: Config) -> None:
        self.encoding, self.seed, self.number = Encoding(config), config.sweep.seed, 0
        self.repeated: Mapping | None = None
        self.independent = optuna.samplers.RandomSampler(seed=self.seed)

    @property
    def size(self) -> int:
        """Number of hyperparameters, and 1 for none."""
        return len(self.encoding.distributions) or 1

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict:
        """All of the space: what does not count in a configuration is not asked for."""
        return dict(self.encoding.distributions)

    def sample_independent(self, study, trial, param_name, param_distribution):
        """Never needed by `space.propose`; Optuna wants it."""
        return self.independent.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict) -> dict:
        """The values of a configuration."""
        if not search_space:
            return {}
        return self.propose(study, trial, trial.system_attrs.get("fixed_params", {}))

    def propose(self, study: optuna.Study, trial: FrozenTrial, fixed: dict) -> dict:
        """The values, those of `fixed` as they are."""
        draw = np.random.default_rng((self.seed, self.number)).random(self.size)
        return self.encoding.decode(draw, fixed)


class FrontSampler(UniformSampler):
    """Proposes what is expected to add most to the hypervolume.

    Args:
        startup: ended trials before the first fit.
    """

    def __init__(self, config: Config, *, startup: int) -> None:
        super().__init__(config)
        self.startup = startup
        self.hints: dict[str, np.ndarray] = {}
        self.fitted: dict[str, int] = {}  # with how many ended trials

    def propose(self, study: optuna.Study, trial: FrozenTrial, fixed: dict) -> dict:
        """The values, those of `fixed` as they are: spread out at first, then by the model."""
        self.rng = np.random.default_rng((self.seed, self.number))
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        ended = [other for other in others if other.state in ENDED]
        usable = _usable(ended)
        if len(ended) < self.startup or not usable:
            sobol = qmc.Sobol(self.size, rng=np.random.default_rng(self.seed))
            if self.number:
                sobol.fast_forward(self.number)
            return self.encoding.decode(sobol.random(1)[0], fixed)
        known = [other.params for other in others]
        signs = np.array([-1.0 if d.name == "MAXIMIZE" else 1.0 for d in study.directions])
        running = [other for other in others if other.state == TrialState.RUNNING and other.params]
        running, self.many, self.ended = running[-MOST:], len(others) > MOST, len(ended)
        if self.many:
            ended = informative(ended, signs)
            usable = _usable(ended)
        if self.number % 4 == 0:
            few = _study(study, ended + running) if self.many else study
            drawn = self._by_density(few, trial, fixed)
            if drawn not in known:
                return drawn
        with _one_thread():  # the workers have the cores
            tried = [other.params for other in usable]
            score = self._score(ended, tried, [other.params for other in running], signs)
            if self.repeated is not None:  # the fits were all that later proposals depend on
                return dict(self.repeated)
            return self._best(score, tried, known, fixed)

    def _by_density(self, study: optuna.Study, trial: FrozenTrial, fixed: dict) -> dict:
        """A draw near good trials: TPE, one hyperparameter after the other, of those that count."""
        trial = copy(trial)
        trial.number = -1  # TPE omits the trial of its number, and those of `_study` are new
        tpe = optuna.samplers.TPESampler(seed=int(self.rng.integers(2**31)), n_startup_trials=0)
        return self.encoding.choose(partial(tpe.sample_independent, study, trial), fixed)

    def _score(
        self,
        ended: Sequence[FrozenTrial],
        tried: Sequence[dict],
        running: Sequence[dict],
        signs: np.ndarray,
    ):
        """The acquisition function: configurations -> float64 [n]."""
        encoding = self.encoding
        models = [
            self._model(f"objective {j}", _values(ended, j, sign), running)
            for j, sign in enumerate(signs)
        ]
        at = encoding.features(tried)
        known = np.stack([model.predict(at)[0] for model in models], 1)
        worst, best = known.max(0), known.min(0)
        reference = worst + 0.1 * np.where(worst > best, worst - best, 1.0)
        front = known[ranks(known) == 0]
        trust = TRUSTING if self.number % 2 else 1.0
        limits = [
            self._model(name, rows, running)
            for name, rows in _constraints(ended).items()
            if any(value > 0 for *_, value in rows)
        ]

        def score(configurations: Sequence[dict]) -> np.ndarray:
            at = encoding.features(configurations)
            mean, sd = (np.stack(part, 1) for part in zip(*[m.predict(at) for m in models],
                                                          strict=True))  # fmt: skip
            gains = expected_improvement(mean, trust * sd, front=front, reference=reference)
            for limit in limits:
                middle, width = limit.predict(at)
                gains = gains * ndtr(-middle / width)
            return gains

        return score

    def _model(self, name: str, rows: list[tuple], running: Sequence[dict]) -> Surrogate:
        """Fit to rows of (trial number, params, remaining, value); what runs counts as its mean."""
        rows = sorted(rows, key=lambda row: (row[2] == 0, row[0]))[-MOST:]
        number, hyperparameters, remaining, values = zip(*rows, strict=True)
        features = self.encoding.features(hyperparameters)
        observations = Observations(features, *map(np.array, (remaining, number, values)))
        hint = self.hints.get(name)
        kept = self.many and self.ended < GROWTH * self.fitted.get(name, 0)
        model = Surrogate(observations, groups=self.encoding.groups, hint=hint, fit=not kept)
        self.hints[name] = model.settings
        self.fitted[name] = self.fitted[name] if kept else self.ended
        if running:
            model.believe(self.encoding.features(running))
        return model

    def _best(
        self, score: Callable, tried: Sequence[dict], known: Sequence[dict], fixed: dict
    ) -> dict:
        """The best of many draws, of neighbours of what was tried, then of theirs."""
        encoding, rng = self.encoding, self.rng
        points = list(qmc.Sobol(self.size, rng=rng).random(CANDIDATES))
        near = cache(lambda i: encoding.encode(tried[i]))  # few of them are drawn
        points += [
            encoding.near(near(int(rng.integers(len(tried)))), rng, scale=scale)
            for scale in (0.3, 0.1, 0.03)
            for _ in range(CANDIDATES // 3)
        ]
        scores = score([encoding.decode(point, fixed) for point in points])
        for scale in (0.1, 0.03, 0.01):
            top = [points[i] for i in np.argsort(-scores, kind="stable")[:8]]
            fresh = [encoding.near(point, rng, scale=scale) for point in top for _ in range(16)]
            points = top + fresh
            scores = score([encoding.decode(point, fixed) for point in points])
        for i in np.argsort(-scores, kind="stable"):  # the same again would be a wasted trial
            best = encoding.decode(points[i], fixed)
            if best not in known:
                break
        return best


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _values(trials: Sequence[FrozenTrial], objective: int, sign: float) -> list[tuple]:
    """(trial number, params, remaining, value, signed to be minimised) of every rung and end."""
    rows = []
    for trial in trials:
        if sign > 0 and trial.constraints.get("degenerate", -1.0) > 0:
            continue  # the gap of a model that always says the same is small and means nothing
        curve = trial.user_attrs.get(CURVE, [])
        seen = [(remaining, values[objective]) for remaining, values in curve]
        if trial.state == TrialState.COMPLETE:
            seen.append((0.0, trial.values[objective]))
        rows += [
            (trial.number, trial.params, remaining, sign * value)
            for remaining, value in seen
            if value is not None and np.isfinite(value)
        ]
    return rows


def _constraints(trials: Sequence[FrozenTrial]) -> dict[str, list[tuple]]:
    rows: dict[str, list[tuple]] = {}
    for trial in trials:
        for name, value in trial.constraints.items():
            rows.setdefault(name, []).append((trial.number, trial.params, 0.0, value))
    return rows


def _usable(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that ran to their end and violate no constraint."""
    ended = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return [t for t in ended if all(value <= 0 for value in t.constraints.values())]


def informative(ended: Sequence[FrozenTrial], signs: np.ndarray) -> list[FrozenTrial]:
    """At most MOST of many trials: half of them nearest to the front, in layers of non-domination,
    and the newest; by number.
    """
    usable, near = _usable(ended), []
    if usable:
        rank = ranks(np.array([trial.values for trial in usable]) * signs)
        order = sorted(range(len(usable)), key=lambda i: (rank[i], -usable[i].number))
        near = [usable[i] for i in order[: MOST // 2]]
    there = {trial.number for trial in near}
    newest = [trial for trial in ended if trial.number not in there][len(near) - MOST :]
    return sorted([*near, *newest], key=lambda trial: trial.number)


def _study(like: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """A study of these trials alone: TPE's time grows with their number."""
    study = optuna.create_study(directions=like.directions)
    study.add_trials(trials)
    return study
