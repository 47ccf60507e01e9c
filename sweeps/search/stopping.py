"""Early stopping under several objectives: at a rung, the better part of what reached it goes on.

    rungs = Rungs(config)
    rungs.note(trial_id, row)                    # of every committed epoch, after a restart too
    if reason := rungs.beaten(trial_id, row): ...    # None, or why the configuration is stopped

Successive halving (Jamieson and Talwalkar 2016), asynchronous as in ASHA (Li et al. 2020): a trial
that reaches a rung is compared with all that did so before it and never waits for more. With
several objectives the order is by non-domination rank, then by crowding distance (Deb et al. 2002).
Three things differ from ASHA with several objectives as it is known:

- what no other beats goes on, however many there are: the front is what the sweep is for;
- so does what lies within a margin of the front: a gap on few speakers is noise, and a rule that
  trusts it stops good trials by luck;
- what is degenerate there ranks behind all others, although its gap is the smallest: by the one
  rule (ermgap/records/trial.py), whose floor at a rung is half of what ERM reached at that
  rung.

The decision is a function of the set of values at the rung, not of the order in which they came;
in a deterministic sweep (order.py) that set is fixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ermgap.config import METRICS, Config
from ermgap.records import DegenerateRule, Records, Trial, file_names, to_json, write_atomically
from sweeps.search.order import knows


@dataclass(frozen=True)
class StoppingRule:
    """Which trials go on from a rung.

    Attributes:
        rungs: epochs after which a trial is compared, ascending; none stops nothing.
        fraction: the share of a rung's trials that goes on at least, in (0, 1].
        directions: "max" or "min" for each of the m objectives.
        margins: of each objective, in its own unit: how far behind the front is still on it.
    """

    rungs: tuple[int, ...]
    fraction: float
    directions: tuple[str, ...]
    margins: tuple[float, ...]

    def goes_on(self, mine: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
        """Whether a trial goes on from a rung.

        Args:
            mine: its values there, [m]; one that is not finite stops it.
            others: values of all other trials that reached the rung, [n, m]; rows that are not
                finite rank last.
        """
        signs = [-1.0 if direction == "max" else 1.0 for direction in self.directions]
        costs = np.array([mine, *others], float) * signs
        if not np.isfinite(costs[0]).all():
            return False
        costs = costs[np.isfinite(costs).all(1)]
        if _unbeaten(costs, self.margins):
            return True
        places = max(1, int(np.ceil(self.fraction * (len(others) + 1) - 1e-9)))
        return ahead(costs) < places


class Rungs:
    """What reached each rung of a sweep, by trial; filled from the records after a restart.

    Args:
        config: of the sweep; without `sweep.stop_after`, and over named points, nothing is stopped.
        trials: those whose committed rows are known already.
        lag: see `order.lag_of`.
    """

    def __init__(
        self, config: Config, trials: Iterable[Trial] = (), *, lag: int | None = None
    ) -> None:
        self.config, self.lag, sweep = config, lag, config.sweep
        self.rule = StoppingRule(
            () if sweep.points else config.rungs,
            1 / sweep.stop_factor,
            tuple(METRICS[name].direction for name in sweep.objectives),
            (sweep.stop_margin,) * len(sweep.objectives),
        )
        self.reached: dict[int, dict[str, dict]] = {epoch: {} for epoch in self.rule.rungs}
        for trial in trials:
            for row in trial.rows:
                if row["epoch"] and row.get("dev"):
                    self.note(trial.trial_id, row)

    def note(self, trial_id: str, row: Mapping) -> None:
        """Keep what a committed epoch reached, if a rung is there."""
        if row["epoch"] in self.reached:
            self.reached[row["epoch"]][trial_id] = _reached(row)

    def beaten(self, trial_id: str, row: Mapping) -> str | None:
        """Why the configuration is stopped with this epoch; None if it goes on."""
        epoch = row["epoch"]
        if epoch not in self.reached:
            return None
        there = self.reached[epoch] | {trial_id: _reached(row)}
        there = {name: it for name, it in there.items() if knows(trial_id, name, self.lag)}
        if self._goes_on(trial_id, there):
            return None
        return f"not among the best of {len(there)} after epoch {epoch}"

    def hindsight(self, stopped: Mapping[str, int]) -> dict[str, int]:
        """How many trials were stopped, and how many of them would go on by all that is known now.

        Args:
            stopped: the epoch by trial.
        """
        regretted = [
            trial_id
            for trial_id, epoch in stopped.items()
            if trial_id in (there := self.reached.get(epoch, {})) and self._goes_on(trial_id, there)
        ]
        return {"stopped": len(stopped), "regretted": len(regretted)}

    def _goes_on(self, trial_id: str, there: Mapping[str, dict]) -> bool:
        """Whether one of the trials that reached a rung goes on from it."""
        rule = DegenerateRule(there[trial_id]["majority_rate"], self.config.sweep.floor)
        rule.loss = self.config.objective.loss
        for name, it in there.items():
            rule.note(name, "finished", it["hyperparameters"], it["selected"])
        values = {}  # the objectives of the epoch selected so far; NaN where it is degenerate
        for name, it in there.items():
            poor = rule.status(it["selected"]) == "degenerate"
            known = [None if poor else it["selected"][n] for n in self.config.sweep.objectives]
            values[name] = [np.nan if value is None else float(value) for value in known]
        mine = values.pop(trial_id)
        return self.rule.goes_on(mine, list(values.values()))


def _reached(row: Mapping) -> dict:
    """What a rung keeps of a row."""
    return {
        "hyperparameters": row.get("config", {}),
        "selected": row["selected"],
        "majority_rate": row["dev"]["majority_rate"],
    }


def write_hindsight(records: Records, config: Config) -> None:
    """Write stopping.json: how many trials were stopped, and how many should not have been."""
    if not config.rungs:
        return
    trials = records.trials()
    stopped = {trial.trial_id: trial.epoch for trial in trials if trial.status == "stopped"}
    text = to_json(Rungs(config, trials).hindsight(stopped))
    file = records.directory / file_names.STOPPING
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def curve(rows: Sequence[Mapping], config: Config) -> list[list]:
    """What a trial's rows showed at the rungs: [share of the training to come, objectives] each."""
    epochs, names = config.train.epochs, config.sweep.objectives
    return [
        [(epochs - row["epoch"]) / (epochs - 1), [row["selected"].get(name) for name in names]]
        for row in rows
        if row["epoch"] in config.rungs and row.get("selected")
    ]


def until(epoch: int, points: Sequence[list], config: Config) -> list[list]:
    """The part of a `curve` that a trial had shown after an epoch."""
    remaining = (config.train.epochs - epoch) / max(config.train.epochs - 1, 1)
    return [point for point in points if point[0] >= remaining - 1e-9]


def ranks(costs: np.ndarray) -> np.ndarray:
    """Non-domination rank of each row of costs [n, m], int [n]: 0 is the front; equal rows tie."""
    import moocore  # only where something is stopped

    return moocore.pareto_rank(costs)


def ahead(costs: np.ndarray) -> int:
    """How many rows of costs [n, m] come before the first: lower ranks, then wider crowding."""
    rank = ranks(costs)
    peers = np.flatnonzero(rank == rank[0])  # the first row is among them
    width = crowding(costs[peers])
    return int((rank < rank[0]).sum() + (width > width[peers == 0][0]).sum())


def crowding(costs: np.ndarray) -> np.ndarray:
    """Crowding distance of each row of costs [n, m] of one front, float64 [n]; the ends have inf.

    Equal rows count once and share theirs, so that the order of rows cannot matter.
    """
    unique, which = np.unique(costs, axis=0, return_inverse=True)
    total = np.zeros(len(unique))
    for column in unique.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        gaps = np.full(len(unique), np.inf)
        if len(unique) > 2 and span > 0:
            gaps[order[1:-1]] = (column[order[2:]] - column[order[:-2]]) / span
        total += gaps
    return total[which.reshape(-1)]


def _unbeaten(costs: np.ndarray, margins: Sequence[float]) -> bool:
    """Whether no other row of costs [n, m] beats the first by more than the margins.

    One beats another by more than the margins when it still dominates it after each of its
    objectives has been made worse by its margin.
    """
    worse = costs + np.asarray(margins, float)
    return not ((worse <= costs[0]).all(-1) & (worse < costs[0]).any(-1)).any()
