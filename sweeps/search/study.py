"""The search's trials so far as an Optuna study in memory, and the samplers that propose from it.

A finished trial is in it with its objectives, a degenerate one with a violated constraint as well,
one that was stopped early as PRUNED, without values, a failed one as FAIL.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import copy

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from ermgap.config import Config, losses
from ermgap.errors import UserError
from ermgap.records import COMPLETE, DegenerateRule
from ermgap.registry import Registry
from sweeps.search import space
from sweeps.search.outcome import Outcome, degenerate, directions
from sweeps.search.sampling.sampler import CURVE, FrontSampler, UniformSampler

SAMPLERS = Registry("sampler")
SAMPLERS["front"] = lambda config, *, seed, startup: FrontSampler(config, startup=min(startup, 5))
SAMPLERS["tpe"] = lambda config, *, seed, startup: optuna.samplers.TPESampler(
    seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
)
SAMPLERS["nsga2"] = lambda config, *, seed, startup: optuna.samplers.NSGAIISampler(
    seed=seed, population_size=max(startup, 4)
)
# It models what every configuration has (lr, r, dropout, loss); the conditional rest is drawn at
# random, of which Optuna would otherwise complain once a value.
SAMPLERS["gp"] = lambda config, *, seed, startup: optuna.samplers.GPSampler(
    seed=seed, n_startup_trials=startup, warn_independent_sampling=False
)
SAMPLERS["random"] = lambda config, *, seed, startup: UniformSampler(config)

SCORES = "scores"  # user attribute of a trial: what the rule for degenerate trials reads


class Study:
    """The study of one search.

    Args:
        config: the sweep's configuration.
        rule: which trials are degenerate; without one their status says so.
        earlier: number of trials of earlier sessions, whose random numbers are not drawn again.

    Attributes:
        study: Optuna's; a trial's number in it is its place.

    Raises:
        UserError: the sampler is not known, or a range of the space is not possible.
    """

    def __init__(
        self, config: Config, *, rule: DegenerateRule | None = None, earlier: int = 0
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.config, self.rule = config, rule
        if "loss" in space.distributions(config) and config.objective.loss not in losses.LOSSES:
            raise UserError(
                f"objective.loss = {config.objective.loss!r} is not searched by a sweep; "
                "run it with sweeps/train.py, or set sweep.space.loss=false."
            )
        sampler = self._sampler(earlier)
        self.study = optuna.create_study(directions=directions(config), sampler=sampler)

    def propose(self, number: int, fixed: Mapping, *, reseed: bool) -> tuple[int, dict]:
        """The place and the hyperparameters of the sweep's `number`-th trial, from the sampler.

        Args:
            fixed: hyperparameters that are given.
            reseed: draw the random numbers of this trial, whatever came before it.
        """
        if isinstance(self.study.sampler, UniformSampler):
            self.study.sampler.number = number
        elif reseed:
            self.study.sampler = self._sampler(number)
        if fixed:
            self.study.enqueue_trial(dict(fixed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self.study.ask()
            return trial.number, space.propose(trial, self.config)

    def repeat(self, number: int, fixed: Mapping, hyperparameters: Mapping) -> int:
        """Ask again for what an earlier session proposed; returns the trial's place.

        As `propose` with `reseed`, so that the sampler comes to the state that it had then.
        """
        sampler = self.study.sampler
        sampler.repeated = hyperparameters  # read by our own samplers alone
        place, proposed = self.propose(number, fixed, reseed=True)
        sampler.repeated = None
        if proposed == hyperparameters:
            return place
        self.study.tell(place, state=TrialState.FAIL)  # another version or order made it
        return self.begin(hyperparameters)

    def begin(self, hyperparameters: Mapping) -> int:
        """Add a trial that runs and that the sampler has not been asked for; returns its place."""
        self.study.add_trial(self._trial(hyperparameters, state=TrialState.RUNNING))
        return len(self.study.get_trials(deepcopy=False)) - 1

    def end(
        self,
        hyperparameters: Mapping,
        status: str,
        measured: Mapping,
        *,
        place: int | None = None,
        own: bool = True,
    ) -> None:
        """Enter how a trial ended.

        Args:
            status, measured: of the broker's outcome.
            place: where it runs in the study; None: it is added if the search could have proposed
                it and there is something to learn from it.
            own: of this sweep, so that its rule applies; the status of another's stands.
        """
        attributes = {CURVE: measured.get(CURVE, [])}
        if own and self.rule is not None and status in COMPLETE:
            status = self.rule.status(measured)
            attributes[SCORES] = {name: measured.get(name) for name in ("acc", "w_f1")}
        outcome = Outcome.of(status, measured, self.config)
        if place is not None:
            outcome.enter(self.study, place, attributes)
        elif outcome.state != TrialState.FAIL and space.inside(hyperparameters, self.config):
            trial = self._trial(hyperparameters, **vars(outcome), user_attrs=attributes)
            self.study.add_trial(trial)

    def judge_again(self) -> None:
        """Judge all by a new floor, in a new study: Optuna lets no trial that ended be changed."""
        before = self.study.get_trials(deepcopy=False)
        now = [self._judged(trial) for trial in before]
        if any(new is not old for new, old in zip(now, before, strict=True)):
            old = self.study
            self.study = optuna.create_study(directions=old.directions, sampler=old.sampler)
            self.study.add_trials(now)

    def _judged(self, trial: FrozenTrial) -> FrozenTrial:
        """The trial itself, or a copy where the rule now says otherwise about it."""
        if trial.state != TrialState.COMPLETE or SCORES not in trial.user_attrs:
            return trial
        constraints = trial.constraints | degenerate(self.rule.status(trial.user_attrs[SCORES]))
        if constraints == trial.constraints:
            return trial
        other, kept = copy(trial), trial.system_attrs.items()
        other.system_attrs = {k: v for k, v in kept if not k.startswith("constraints")}
        for name, value in constraints.items():
            other.set_constraint(name, value)
        return other

    def _trial(self, hyperparameters: Mapping, **more) -> FrozenTrial:
        distributions = space.active(hyperparameters, self.config)
        return create_trial(
            params={name: hyperparameters[name] for name in distributions},
            distributions=distributions,
            **more,
        )

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A sampler whose random numbers no other session, and no other trial, has drawn."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return SAMPLERS.find(self.config.sweep.sampler)(
                self.config,
                seed=self.config.sweep.seed * 100_003 + number,
                startup=min(10, max(4, self.config.sweep.trials // 3)),
            )
