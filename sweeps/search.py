"""Optuna as a searcher of Ray Tune that learns from the records, and only from them.

Trial ids are ours (`t0000`) and travel in the configuration. What is told to Optuna is what the
records hold: a finished trial's objectives, a degenerate one's with a violated constraint, a
failed one as FAIL; an interrupted one is not told. A resumed sweep rebuilds the study from the
records, so a crash can leave no zombie in it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import optuna
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from ermgap.config import OBJECTIVES, Config
from ermgap.errors import UserError
from ermgap.records import Trial
from ermgap.registry import Registry
from sweeps import space

SAMPLERS = Registry("sampler")
SAMPLERS["tpe"] = lambda seed, startup: optuna.samplers.TPESampler(
    seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
)
SAMPLERS["random"] = lambda seed, startup: optuna.samplers.RandomSampler(seed=seed)


class Stateless(Searcher):
    """A searcher that Tune need not save: the records are its state."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""


class RecordsSearcher(Stateless):
    """Proposes configurations over the conditional space under two or three objectives.

    Args:
        config: the sweep's configuration.
        trials: the sweep's trials so far, from its records; ended ones are learnt from, unfinished
            ones are offered first, under their own ids.

    Raises:
        UserError: the sampler or a range of the space is not known.
    """

    def __init__(self, config: Config, trials: Sequence[Trial] = ()) -> None:
        super().__init__()
        self.config = config
        self.interrupted = False
        self.study = _study(config, len(trials))
        self.erm = 0
        self.counted: set[str] = set()
        self.asked: dict[str, optuna.Trial] = {}
        self.offered: dict[str, dict] = {}
        self.next_number = 0
        self.first: list[tuple[str, dict]] = []
        for trial in trials:
            self._count(trial.trial_id, trial.config)
            if trial.ended:
                self._learn(trial.config, trial.status, trial.selected)
            else:
                self.first.append((trial.trial_id, trial.config))
        known = {trial.trial_id for trial in trials}
        for number, point in enumerate(space.named_points(config)[: config.sweep.trials]):
            if f"t{number:04d}" not in known:
                self.first.append((f"t{number:04d}", point))

    def suggest(self, trial_id: str) -> dict | str:
        """A configuration for Tune's trial: our trial id and the chosen values."""
        if self.interrupted:
            return Searcher.FINISHED
        if self.first:
            ours, chosen = self.first.pop(0)
            self._count(ours, chosen)
        else:
            ours, chosen = f"t{self.next_number:04d}", self._ask(trial_id)
            self._count(ours, chosen)
        self.offered[trial_id] = chosen
        return {"trial_id": ours, "chosen": chosen}

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how Tune's trial ended; `result` is the broker's outcome."""
        chosen, asked = self.offered.pop(trial_id, None), self.asked.pop(trial_id, None)
        status = (result or {}).get("status", "failed")
        if chosen is None or status == "interrupted":
            return
        if asked is None:
            self._learn(chosen, status, result or {})
            return
        values = self._values(status, result or {})
        if values is None:
            self.study.tell(asked, state=TrialState.FAIL)
            return
        asked.set_constraint("degenerate", _violation(status))
        self.study.tell(asked, values)

    def _ask(self, trial_id: str) -> dict:
        losses = space.distributions(self.config).get("loss")
        if losses is not None and "erm" in losses.choices:
            self.study.enqueue_trial({"loss": self._allotted(losses.choices)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            asked = self.study.ask()
            chosen = space.propose(asked, self.config)
        self.asked[trial_id] = asked
        return chosen

    def _allotted(self, losses: Sequence[str]) -> str:
        """ERM for its share of the trials, so that the baseline is tuned too; else another loss.

        Left to the sampler, half of a short sweep's first draws would be ERM.
        """
        others = [loss for loss in losses if loss != "erm"]
        due = self.erm < self.config.sweep.erm_share * (len(self.counted) + 1)
        return "erm" if due or not others else others[len(self.counted) % len(others)]

    def _learn(self, chosen: dict, status: str, measured: dict) -> None:
        values = self._values(status, measured)
        if values is None or not space.inside(chosen, self.config):
            return
        known = space.active(chosen, self.config)
        self.study.add_trial(
            create_trial(
                values=values,
                params={name: chosen[name] for name in known},
                distributions=known,
                constraints={"degenerate": _violation(status)},
            )
        )

    def _values(self, status: str, measured: dict) -> list[float] | None:
        values = [measured.get(name) for name in self.config.sweep.objectives]
        fine = status in ("finished", "degenerate") and all(
            isinstance(value, (int, float)) and math.isfinite(value) for value in values
        )
        return [float(value) for value in values] if fine else None

    def _count(self, ours: str, chosen: dict) -> None:
        if ours not in self.counted:
            self.counted.add(ours)
            self.next_number = max(self.next_number, int(ours.removeprefix("t")) + 1)
            self.erm += chosen.get("loss") == "erm"


class Together(Stateless):
    """Several proposals in one Tune trial: a gang costs one process then, not one a member.

    Args:
        one: proposes each; `interrupted` is its own.
        gang: proposals in a Tune trial.
        trials: proposals in all.
        slots: Tune trials to begin with. More come when `ahead` is set: the process of one that
            could only wait would slow the start of those that train.
    """

    def __init__(self, one: Searcher, *, gang: int, trials: int, slots: int | None = None) -> None:
        super().__init__()
        self.one, self.gang, self.left, self.slots = one, gang, trials, slots
        self.live, self.ahead = 0, slots is None

    def suggest(self, trial_id: str) -> dict | str | None:
        """`{"proposals": [...]}`, up to a gang of them; None: not now."""
        if not self.ahead and self.live >= self.slots:
            return None
        proposals = []
        while len(proposals) < min(self.gang, self.left):
            proposal = self.one.suggest(f"{trial_id}-{len(proposals)}")
            if proposal == Searcher.FINISHED:
                break
            proposals.append(proposal)
        self.left -= len(proposals)
        self.live += 1
        return {"proposals": proposals} if proposals else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Pass each outcome on; all have failed where Tune's trial itself did."""
        self.live -= 1
        outcomes = (result or {}).get("outcomes", [])
        for number in range(self.gang):
            outcome = outcomes[number] if number < len(outcomes) else None
            self.one.on_trial_complete(f"{trial_id}-{number}", outcome, error)


class SingleSearcher(Stateless):
    """Proposes the configuration itself, once: a sweep of one (sweeps/train.py)."""

    def __init__(self, config: Config, trials: Sequence[Trial] = ()) -> None:
        super().__init__()
        self.chosen = {"loss": config.objective.loss, "weight": config.objective.weight}
        self.interrupted = any(trial.ended for trial in trials)

    def suggest(self, trial_id: str) -> dict | str:
        """The configuration, then no more."""
        if self.interrupted:
            return Searcher.FINISHED
        self.interrupted = True
        return {"trial_id": "t0000", "chosen": self.chosen}

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Nothing to learn."""


class PointsSearcher(Stateless):
    """Proposes the configurations that `sweep.points` names, in their order, and no other.

    Args:
        config: the sweep's configuration; the k-th point is the trial `t000k`.
        trials: the sweep's trials so far; those that have ended are not proposed again.
    """

    def __init__(self, config: Config, trials: Sequence[Trial] = ()) -> None:
        super().__init__()
        self.interrupted = False
        ended = {trial.trial_id for trial in trials if trial.ended}
        self.left = [
            {"trial_id": trial_id, "chosen": dict(chosen)}
            for trial_id, chosen in named_trials(config)
            if trial_id not in ended
        ]

    def suggest(self, trial_id: str) -> dict | str:
        """The next point, then no more."""
        return self.left.pop(0) if self.left and not self.interrupted else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Nothing to learn."""


def named_trials(config: Config) -> list[tuple[str, dict]]:
    """(trial id, hyperparameters) of each of `sweep.points`."""
    return [(f"t{i:04d}", point) for i, point in enumerate(config.sweep.points.values())]


def searcher(config: Config, trials: Sequence[Trial] = ()) -> Stateless:
    """What proposes a sweep's configurations: its named points if it has any, else a search."""
    return (PointsSearcher if config.sweep.points else RecordsSearcher)(config, trials)


def require_space(config: Config) -> None:
    """Refuse what cannot be searched: the first points, the ends of every range, each choice.

    Raises:
        UserError: names the hyperparameter and what the configuration says of its value.
    """
    from ermgap.objective import LOSSES, WEIGHTS

    points = [point for _, point in named_trials(config)]
    if not points:
        _study(config, 0)
        points = [*space.named_points(config), *space.extremes(config)]
    for point in points:
        try:
            objective = space.apply(point, config).objective
            LOSSES.find(objective.loss), WEIGHTS.find(objective.weight)
        except UserError as mistake:
            words = ", ".join(f"{name} = {value}" for name, value in point.items())
            raise UserError(f"the sweep would try {words}, but {mistake}") from mistake


def _study(config: Config, known: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [
        "maximize" if OBJECTIVES[n] == "max" else "minimize" for n in config.sweep.objectives
    ]
    if "loss" in space.distributions(config) and config.objective.loss not in space.LOSSES:
        raise UserError(
            f"objective.loss = {config.objective.loss!r} is not searched by a sweep; "
            "run it with sweeps/train.py, or set sweep.space.loss=false."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Two sessions of one sweep must not draw the same numbers.
        sampler = SAMPLERS.find(config.sweep.sampler)(
            config.sweep.seed * 100_003 + known, min(10, max(4, config.sweep.trials // 3))
        )
    return optuna.create_study(directions=directions, sampler=sampler)


def _violation(status: str) -> float:
    return 1.0 if status == "degenerate" else -1.0
