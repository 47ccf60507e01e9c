"""Optuna as a searcher of Ray Tune that learns from the records, and only from them.

Trial ids are ours (`t0000`) and travel in the configuration. What is told to Optuna is what the
records hold: a finished trial's objectives, a degenerate one's with a violated constraint, one
that was stopped early as PRUNED, without values, a failed one as FAIL; an interrupted one is not
told. A resumed sweep rebuilds the study from the
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
from sweeps.journal import violations
from sweeps.proposals import PointsSearcher, Stateless, named_trials
from sweeps.sampler import CURVE, FrontSampler, UniformSampler
from sweeps.stopping import curve

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


class RecordsSearcher(Stateless):
    """Proposes configurations over the conditional space under two or three objectives.

    Args:
        config: the sweep's configuration.
        trials: the sweep's trials so far, from its records; ended ones are learnt from, unfinished
            ones are offered first, under their own ids.
        earlier: trials of other sweeps, to learn from as well.
        points: what a new sweep begins with; ERM and the paper's configuration by default.

    Raises:
        UserError: the sampler or a range of the space is not known.
    """

    def __init__(
        self,
        config: Config,
        trials: Sequence[Trial] = (),
        *,
        earlier: Sequence[Trial] = (),
        points: Sequence[dict] | None = None,
    ) -> None:
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
        for trial in earlier:
            self._learn_from(trial)
        for trial in trials:
            self._count(trial.trial_id, trial.config)
            if trial.ended:
                self._learn_from(trial)
            else:
                self.first.append((trial.trial_id, trial.config))
        known = {trial.trial_id for trial in trials}
        points = space.named_points(config) if points is None else points
        for number, point in enumerate(points[: config.sweep.trials]):
            if (ours := space.trial_id(number)) not in known:
                self.first.append((ours, point))

    def suggest(self, trial_id: str) -> dict | str:
        """A configuration for Tune's trial: our trial id and the chosen values."""
        if self.interrupted:
            return Searcher.FINISHED
        if self.first:
            ours, chosen = self.first.pop(0)
            self._count(ours, chosen)
        else:
            ours, chosen = space.trial_id(self.next_number), self._ask(trial_id)
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
        asked.set_user_attr(CURVE, (result or {}).get(CURVE, []))
        if values is None:
            stopped = status == "stopped"
            self.study.tell(asked, state=TrialState.PRUNED if stopped else TrialState.FAIL)
            return
        for name, value in violations(status, result or {}, self.config).items():
            asked.set_constraint(name, value)
        self.study.tell(asked, values)

    def _ask(self, trial_id: str) -> dict:
        losses = space.distributions(self.config).get("loss")
        if losses is not None and "erm" in losses.choices:
            self.study.enqueue_trial({"loss": self._allotted(losses.choices)})
        if isinstance(self.study.sampler, UniformSampler):
            self.study.sampler.number = self.next_number
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

    def _learn_from(self, trial: Trial) -> None:
        shown = {CURVE: curve(trial.rows, self.config)}
        self._learn(trial.config, trial.status, trial.selected | shown)

    def _learn(self, chosen: dict, status: str, measured: dict) -> None:
        values = self._values(status, measured)
        stopped = status == "stopped"
        if (values is None and not stopped) or not space.inside(chosen, self.config):
            return
        known = space.active(chosen, self.config)
        self.study.add_trial(
            create_trial(
                state=TrialState.PRUNED if stopped else TrialState.COMPLETE,
                values=values,
                params={name: chosen[name] for name in known},
                distributions=known,
                user_attrs={CURVE: measured.get(CURVE, [])},
                constraints=None if stopped else violations(status, measured, self.config),
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


def searcher(
    config: Config, trials: Sequence[Trial] = (), earlier: Sequence[Trial] = ()
) -> Stateless:
    """What proposes a sweep's configurations: its named points if it has any, else a search."""
    if config.sweep.points:
        return PointsSearcher(config, trials)
    return RecordsSearcher(config, trials, earlier=earlier)


def require_space(config: Config) -> None:
    """Refuse what cannot be searched: the first points, the ends of every range, each choice.

    Raises:
        UserError: names the hyperparameter and what the configuration says of its value.
    """
    from ermgap import objective

    points = [point for _, point in named_trials(config)]
    if not points:
        _study(config, 0)
        points = [*space.named_points(config), *space.extremes(config)]
    for point in points:
        try:
            objective.require(space.apply(point, config).objective)
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
            config,
            seed=config.sweep.seed * 100_003 + known,
            startup=min(10, max(4, config.sweep.trials // 3)),
        )
    return optuna.create_study(directions=directions, sampler=sampler)
