"""Optuna as a searcher of Ray Tune that learns from the records, and only from them.

Trial ids are ours (`t0000`) and travel in the configuration. Optuna learns what the records hold
(study.py), and nothing of an interrupted trial. A resumed sweep rebuilds the study from the
records, so a crash can leave no zombie in it. In a deterministic sweep (order.py) it comes to the
very state that it would have without the interruption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
from ray.tune.search import Searcher

from ermgap.config import Config
from ermgap.errors import UserError
from ermgap.records import DegenerateRule, Trial
from sweeps.search import order, space
from sweeps.search.proposals import PointsSearcher, Stateless
from sweeps.search.sampling.sampler import CURVE
from sweeps.search.shares import Shares
from sweeps.search.stopping import curve
from sweeps.search.study import SAMPLERS, Study

__all__ = ["SAMPLERS", "RecordsSearcher", "require_space", "searcher"]


class RecordsSearcher(Stateless):
    """Proposes configurations over the conditional space under two or three objectives.

    Args:
        config: the sweep's configuration.
        trials: the sweep's trials so far, from its records; ended ones are learnt from, unfinished
            ones are offered first, under their own ids.
        earlier: trials of other sweeps, to learn from as well.
        points: what a new sweep begins with; ERM and the paper's configuration by default.
        rule: which trials are degenerate, as before any has ended; by default their status alone
            says so.
        lag: see `order.lag_of`.

    Raises:
        UserError: the sampler is not known, or a range of the space is not possible.
    """

    def __init__(
        self,
        config: Config,
        trials: Sequence[Trial] = (),
        *,
        earlier: Sequence[Trial] = (),
        points: Sequence[dict] | None = None,
        rule: DegenerateRule | None = None,
        lag: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.rule, self.lag = config, rule, lag
        self.interrupted = False
        points = space.named_points(config) if points is None else points
        self.points = points[: config.sweep.trials]
        self.learnt = Study(config, rule=rule, earlier=len(trials))
        self.shares = Shares(config)
        self.counted: set[int] = set()  # numbers of all trials that were proposed
        self.asked: dict[int, int] = {}  # place in the study of those that it takes for running
        self.ended: dict[int, tuple] = {}  # what is not learnt yet: hyperparameters, status, scores
        self.offered: dict[str, tuple[int, dict]] = {}  # by the id of Tune's trial
        self.next_number = self.next_to_learn = 0
        for trial in earlier:
            self.learnt.end(trial.hyperparameters, trial.status, self._measured(trial), own=False)
        self.before = {
            order.number_of(trial.trial_id): space.completed(trial, config) for trial in trials
        }
        numbers = sorted(n for n, trial in self.before.items() if not trial.ended)
        self.first = [(number, self.before[number].hyperparameters) for number in numbers]
        if lag is None or not trials:
            self._catch_up()

    @property
    def study(self) -> optuna.Study:
        """Optuna's study: what has been learnt."""
        return self.learnt.study

    def suggest(self, trial_id: str) -> dict | str | None:
        """Our trial id and the hyperparameters for Tune's trial.

        None: not before another trial has ended.
        """
        if self.interrupted:
            return Searcher.FINISHED
        if not self.first:
            self._catch_up()  # in a deterministic sweep seconds to minutes: only now
        if self.first:
            number, hyperparameters = self.first.pop(0)
        elif self._may_propose(number := self.next_number):
            hyperparameters = self._propose(number)
        else:
            return None
        self.offered[trial_id] = number, hyperparameters
        return {"trial_id": order.trial_id(number), "hyperparameters": hyperparameters}

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Learn how Tune's trial ended; `result` is the broker's outcome."""
        number, hyperparameters = self.offered.pop(trial_id, (None, None))
        status = (result or {}).get("status", "failed")
        if hyperparameters is not None and status != "interrupted":
            self._end(number, hyperparameters, status, result or {})

    def _catch_up(self) -> None:
        """Go through the trials of earlier sessions, once, by number.

        What a crash kept from the records is offered then: named points, and in a deterministic
        sweep proposals, which are made again.
        """
        trials, self.before = self.before, {}
        last = max([len(self.points) - 1, *trials])
        for number in range(self.next_number, last + 1):
            if number in trials:
                trial = trials[number]
                self._enter(number, trial.hyperparameters)
                if trial.ended:
                    measured = self._measured(trial)
                    self._end(number, trial.hyperparameters, trial.status, measured)
            elif number < len(self.points):
                self._count(number, self.points[number])
                self.first.append((number, self.points[number]))
            elif self.lag is not None and self._may_propose(number):
                self.first.append((number, self._propose(number)))

    def _enter(self, number: int, hyperparameters: dict) -> None:
        """A trial of an earlier session takes its place in the study, as running."""
        inside = number >= len(self.points) and space.inside(hyperparameters, self.config)
        if inside and self.lag is None:
            self.asked[number] = self.learnt.begin(hyperparameters)
        elif inside:  # the sampler comes to the state that it had then
            self._learn_until(number - self.lag)
            fixed = self.shares.fixed(number)
            self.asked[number] = self.learnt.repeat(number, fixed, hyperparameters)
        self._count(number, hyperparameters)

    def _propose(self, number: int) -> dict:
        if self.lag is not None:
            self._learn_until(number - self.lag)
        fixed, reseed = self.shares.fixed(number), self.lag is not None
        self.asked[number], hyperparameters = self.learnt.propose(number, fixed, reseed=reseed)
        self._count(number, hyperparameters)
        return hyperparameters

    def _count(self, number: int, hyperparameters: Mapping) -> None:
        self.counted.add(number)
        self.next_number = max(self.next_number, number + 1)
        self.shares.count(hyperparameters)

    def _may_propose(self, number: int) -> bool:
        """Whether all those have ended whose ends the proposal is to know."""
        if self.lag is None:
            return True
        due = self.counted.intersection(range(self.next_to_learn, number - self.lag + 1))
        return due <= self.ended.keys()

    def _end(self, number: int, hyperparameters: dict, status: str, measured: dict) -> None:
        self.ended[number] = hyperparameters, status, measured
        if self.lag is None:
            self._learn(number)

    def _learn_until(self, last: int) -> None:
        for number in range(self.next_to_learn, last + 1):
            if number in self.ended:
                self._learn(number)
        self.next_to_learn = max(self.next_to_learn, last + 1)

    def _learn(self, number: int) -> None:
        """Enter the end of a trial in the study, and which others are degenerate by it."""
        hyperparameters, status, measured = self.ended.pop(number)
        floor = self.rule.floor() if self.rule else None
        if self.rule:
            self.rule.note(order.trial_id(number), status, hyperparameters, measured)
        self.learnt.end(hyperparameters, status, measured, place=self.asked.pop(number, None))
        self.shares.learn(hyperparameters, status, measured)
        if self.rule and self.rule.floor() != floor:
            self.learnt.judge_again()

    def _measured(self, trial: Trial) -> dict:
        """What the broker's outcome of an ended trial holds."""
        return trial.selected | {CURVE: curve(trial.rows, self.config)}


def searcher(
    config: Config,
    trials: Sequence[Trial] = (),
    earlier: Sequence[Trial] = (),
    *,
    rule: DegenerateRule | None = None,
    lag: int | None = None,
) -> Stateless:
    """The searcher of a sweep: over its named points if it has any, else by Optuna."""
    if config.sweep.points:
        return PointsSearcher(config.sweep.points.values(), trials)
    return RecordsSearcher(config, trials, earlier=earlier, rule=rule, lag=lag)


def require_space(config: Config) -> None:
    """Check the first points, the ends of every range and each choice.

    Raises:
        UserError: names the hyperparameter and what the configuration says of its value.
    """
    from ermgap import objective

    points = list(config.sweep.points.values())
    if not points:
        Study(config)
        points = [*space.named_points(config), *space.extremes(config)]
    for point in points:
        try:
            objective.check_registered(space.apply(point, config).objective)
        except UserError as mistake:
            values = ", ".join(f"{name} = {value}" for name, value in point.items())
            raise UserError(f"the sweep would try {values}, but {mistake}") from mistake
