"""The Pareto front of a sweep and its hypervolume, as an object to be tested before it is drawn.

    info = front.info(Records.open("results/demo"))
    print(info.hypervolume, [point.trial_id for point in info.front])
Only finished trials can be on the front, no degenerate ones (`Records.trials` applies that rule).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from analysis.front.attribute import Attribute
from analysis.front.dominance import hypervolume, layers, non_dominated
from ermgap.config import METRICS
from ermgap.errors import UserError
from ermgap.metrics import OVERALL, uncounted_cells, violation
from ermgap.records import COMPLETE, ENDED, Records, Trial, file_names, parse_id


@dataclass(frozen=True)
class Point:
    """One trial at its selected epoch, or a position of the dial (analysis.front.dial).

    Attributes:
        values: every metric of METRICS, in fractions or nats; NaN where undefined.
        raised_share: of the utterances of its selected epoch, the share whose losses the training
            pushed up; None in rows of earlier versions.
        outside: whether it misses a constraint of the sweep.
        eligible: whether it may be on the front: complete, with every objective, not degenerate
            and not outside.
    """

    trial_id: str
    status: str
    reason: str | None
    hyperparameters: dict
    epoch: int | None
    values: dict[str, float]
    worst_cell: str | None = None
    raised_share: float | None = None
    outside: bool = False
    eligible: bool = False
    on_front: bool = False

    @property
    def degenerate(self) -> bool:
        """Whether its model says too little to be compared (`Records.trials` has judged it)."""
        return self.status == "degenerate"

    @property
    def is_erm(self) -> bool:
        """Whether the trial has no fairness term: the baseline."""
        return self.hyperparameters.get("loss") == "erm"

    @property
    def dial(self) -> tuple[str, str, float] | None:
        """The ids of the trials at the ends of its line, and its position; None of a trial."""
        return parse_id(self.trial_id)

    @property
    def kind(self) -> str:
        """front, dominated, degenerate, outside or undefined (an objective); or an unfinished one's
        status."""
        if self.status not in COMPLETE:
            return self.status
        if self.eligible:
            return "front" if self.on_front else "dominated"
        if self.degenerate:
            return "degenerate"
        return "outside" if self.outside else "undefined"


@dataclass(frozen=True)
class FrontInfo:
    """A sweep as figures, tables and the live view show it: its points and its front.

    Attributes:
        reference: the reference point of the hypervolume, an objective each.
        dial: positions between trials, candidates of the front beside `points`
            (`analysis.statistics.dial.read` adds them).
        hypervolume: of the trials, as a share of all that is attainable, 0 to 1.
        hypervolume_with_dial: of trials and dial; None without a dial.
        planned: number of trials that the sweep is to have.
        half_written: whether half-written lines of the records were skipped.
        speakers, cells: their numbers on dev.
        uncounted: cells that do not count for max_gap, with their numbers
            (`ermgap.metrics.uncounted_cells`).
        sweep: what sweep.yaml holds.
    """

    name: str
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    reference: tuple[float, ...]
    points: tuple[Point, ...]
    hypervolume: float
    floor: float | None
    majority_rate: float
    planned: int
    done: bool
    half_written: bool = False
    speakers: int | None = None
    cells: int = 0
    uncounted: dict[str, str] = field(default_factory=dict)
    sweep: dict = field(default_factory=dict, repr=False)
    dial: tuple[Point, ...] = ()
    hypervolume_with_dial: float | None = None

    @cached_property
    def lines(self) -> list[list[Point]]:
        """The positions of each line of the dial in order, from its lower end on."""
        lines: dict[tuple[str, str], list[Point]] = {}
        for point in self.dial:
            lower, upper, _ = point.dial
            lines.setdefault((lower, upper), [self.find(lower)]).append(point)
        return list(lines.values())

    @property
    def cell(self) -> str | None:
        """The cell that was named before the sweep, or None."""
        return ((self.sweep.get("config") or {}).get("sweep") or {}).get("cell")

    @property
    def attribute(self) -> Attribute:
        """The sensitive attribute whose gaps the sweep is about."""
        return Attribute.of(self.sweep)

    @property
    def candidates(self) -> tuple[Point, ...]:
        """Trials and positions of the dial: all that can be chosen."""
        return self.points + self.dial

    @cached_property
    def front(self) -> tuple[Point, ...]:
        """Non-dominated points, best first objective first."""
        sign = -1 if self.directions[0] == "max" else 1
        on_front = [point for point in self.candidates if point.on_front]
        return tuple(
            sorted(on_front, key=lambda p: (sign * p.values[self.objectives[0]], p.trial_id))
        )

    @cached_property
    def erm(self) -> Point | None:
        """The eligible ERM trial of the best selected W-F1, or None."""
        candidates = [point for point in self.points if point.eligible and point.is_erm]
        return max(candidates, key=lambda point: point.values["w_f1"], default=None)

    @cached_property
    def highlighted(self) -> tuple[Point, ...]:
        """The front and the ERM baseline: what is compared, and what gets error bars."""
        baseline = () if self.erm is None or self.erm.on_front else (self.erm,)
        return self.front + baseline

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of trials of each `kind`."""
        return dict(Counter(point.kind for point in self.points))

    @property
    def complete(self) -> int:
        """Number of trials that ran to their end."""
        return sum(point.status in COMPLETE for point in self.points)

    @property
    def ended(self) -> int:
        """Number of trials with a final status, failed and stopped ones included."""
        return sum(point.status in ENDED for point in self.points)

    def find(self, trial_id: str | None) -> Point | None:
        """The point of a trial or of a position of the dial, or None."""
        return next((point for point in self.candidates if point.trial_id == trial_id), None)

    def best(self, count: int) -> list[Point]:
        """The `count` eligible points nearest to the front, in layers of non-domination."""
        eligible = [point for point in self.points if point.eligible]
        numbers = layers(self.scores(eligible), directions=self.directions)
        return [eligible[i] for i in np.argsort(numbers, kind="stable")[:count]]

    def scores(self, points: Sequence[Point]) -> np.ndarray:
        """The objectives of points, [points, objectives]."""
        values = [[point.values[name] for name in self.objectives] for point in points]
        return np.array(values, float).reshape(len(points), len(self.objectives))

    def volume(self, scores: np.ndarray) -> float:
        """The hypervolume of objectives [points, objectives] up to the sweep's reference point."""
        return hypervolume(scores, reference=self.reference, directions=self.directions)


def info(records: Records) -> FrontInfo:
    """Read a sweep, finished or not; raises UserError if its description lacks what is needed."""
    sweep = records.sweep
    objectives = tuple(_needed(records, "objectives"))
    directions = tuple(_needed(records, "directions")[name] for name in objectives)
    reference = tuple(float(_needed(records, "reference_point")[name]) for name in objectives)
    majority = float(_needed(records, "majority_rate"))
    # A sweep that does not search the loss has it in its configuration alone.
    config = sweep.get("config") or {}
    loss, searched = (config.get("objective") or {}).get("loss"), config.get("sweep") or {}
    unsearched = {"loss": loss} if loss and not searched.get("points") else {}
    trials = records.trials()
    rule = records.rule(trials)
    limits = searched.get("constraints") or {}
    points = [_point(trial, unsearched) for trial in trials]
    points = judged(points, objectives, directions, limits=limits)
    values = [[p.values[name] for name in objectives] for p in points if p.eligible]
    return FrontInfo(
        name=str(sweep.get("name") or records.directory.resolve().name),
        objectives=objectives,
        directions=directions,
        reference=reference,
        points=tuple(points),
        hypervolume=hypervolume(values, reference=reference, directions=directions),
        floor=rule.floor() if rule else None,
        majority_rate=majority,
        planned=max(int(sweep.get("trials") or 0), len(points)),
        done=records.finished,
        half_written=records.half_written,
        speakers=_dev_speakers(records),
        **_cells(records, config.get("data") or {}),
        sweep=dict(sweep),
    )


def judged(
    points: Sequence[Point],
    objectives: Sequence[str],
    directions: Sequence[str],
    *,
    limits: Mapping[str, float],
) -> list[Point]:
    """The points with `outside`, `eligible` and `on_front` filled in.

    `limits` are the sweep's constraints (`ermgap.metrics.violation`).
    """
    judged = []
    for point in points:
        complete = point.status in COMPLETE
        defined = all(np.isfinite(point.values[name]) for name in objectives)
        missed = any(violation(n, point.values[n], limit) > 0 for n, limit in limits.items())
        eligible = complete and defined and not point.degenerate and not missed
        judged.append(replace(point, outside=complete and missed, eligible=eligible))
    values = [[p.values[name] if p.eligible else np.nan for name in objectives] for p in judged]
    flags = non_dominated(values, directions=directions)
    return [replace(point, on_front=bool(flag)) for point, flag in zip(judged, flags, strict=True)]


def _point(trial: Trial, unsearched: Mapping) -> Point:
    values = {name: _number(trial.selected.get(name)) for name in METRICS}
    epoch = trial.selected.get("epoch")
    row = next((row for row in trial.rows if row.get("epoch") == epoch), {})
    cell = (row.get("dev") or {}).get("worst_cell")
    return Point(
        trial.trial_id,
        trial.status,
        trial.reason,
        dict(unsearched) | dict(trial.hyperparameters),
        epoch,
        values,
        cell,
        row.get("raised_share"),
    )


def _dev_speakers(records: Records) -> int | None:
    """Speakers of the dev utterances; None where the table cannot be read."""
    try:
        table = records.table()
    except UserError:
        return None
    dev = table[table["split"] == "dev"]
    return len(dev[["corpus", "speaker"]].drop_duplicates())


def _cells(records: Records, data: Mapping) -> dict[str, object]:
    """`cells` and `uncounted` of a sweep, by the first row that has gaps: all have the same dev."""
    rows = (row for trial in records.trials() for row in trial.rows)
    gaps = next((g for row in rows if (g := (row.get("dev") or {}).get("gaps"))), {})
    support = {"min_support": int(data.get("min_support", 5))}
    support |= {"cell_support": data.get("cell_support")}
    cells = [name for name in gaps if name.split("/", 1)[0] != OVERALL]
    return {"cells": len(cells), "uncounted": uncounted_cells(gaps, **support)}


def _number(value: object) -> float:
    return float("nan") if value is None else float(value)


def _needed(records: Records, key: str) -> Mapping | Sequence | float:
    try:
        return records.sweep[key]
    except KeyError:
        where = records.directory / file_names.SWEEP
        raise UserError(f"{where} has no {key!r}; restore the file that the sweep wrote.") from None
