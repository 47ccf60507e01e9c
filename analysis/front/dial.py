"""The dial in the front: lines of adapters between two trials, smoothed over their positions.

    lines = read(info, records)
    info = with_dial(info, lines, records.rule(records.trials()))
A position counts with the value of its line's smoothed curve: of sixteen neighbours that hardly
differ, the one with the best score is the luckiest one. Positions 0 and 1 are the two trials
themselves, so they belong to the curve and are no points of their own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from analysis.front.front import FrontInfo, Point, judged
from ermgap.config import METRICS
from ermgap.records import DegenerateRule, Records

SPAN = 0.75  # of the positions, that a curve is fitted to at each of them
ENDS = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Line:
    """The positions between two trials, and beyond the upper one.

    Attributes:
        lower, upper: ids of the trials at positions 0 and 1.
        positions: [n], ascending. ids: the position's id, or the trial's at an end, [n].
        measured: every metric of METRICS, [n], in fractions or nats.
        worst_cells: where each position's largest gap is, [n].
        barred: bool [n], positions in a barrier, which no other is smoothed with.
    """

    lower: str
    upper: str
    positions: np.ndarray
    ids: tuple[str, ...]
    measured: dict[str, np.ndarray]
    worst_cells: tuple[str | None, ...]
    barred: np.ndarray

    @property
    def name(self) -> str:
        """As in the ids of its positions, `t0000-t0007`."""
        return f"{self.lower}-{self.upper}"

    @cached_property
    def smoother(self) -> np.ndarray:
        """The matrix [n, n] that makes the smoothed curve of values [n]."""
        matrix, free = smoother(self.positions), ~self.barred
        matrix[free] = 0.0
        matrix[np.ix_(free, free)] = smoother(self.positions[free])
        return matrix

    @cached_property
    def smoothed(self) -> dict[str, np.ndarray]:
        """The smoothed curves, [n] each."""
        return {name: np.maximum(self.smoother @ v, 0.0) for name, v in self.measured.items()}


def read(info: FrontInfo, records: Records) -> list[Line]:
    """The lines of `dial.jsonl` whose two trials are in `info`, in order of appearance."""
    rows: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for row in records.dial():
        if row["position"] not in ENDS:  # there stand the trials' own scores
            rows[row["lower"], row["upper"]].append(row)
    ends = {names: [info.find(name) for name in names] for names in rows}
    return [_line(*ends[names], rows[names]) for names in rows if all(ends[names])]


def _line(lower: Point, upper: Point, rows: list[dict]) -> Line:
    """A line from its rows and its two trials."""
    scores = {
        row["position"]: (row["id"], row["dev"], row["dev"].get("worst_cell")) for row in rows
    }
    for position, trial in zip(ENDS, (lower, upper), strict=True):
        scores[position] = (trial.trial_id, trial.values, trial.worst_cell)
    positions = np.array(sorted(scores), float)
    ids, values, cells = zip(*(scores[position] for position in positions), strict=True)
    measured = {
        name: np.array([np.nan if (v := row.get(name)) is None else v for row in values], float)
        for name in METRICS
    }
    free = np.zeros(len(positions), bool)
    return Line(lower.trial_id, upper.trial_id, positions, ids, measured, cells, barred=free)


def smoother(positions: np.ndarray) -> np.ndarray:
    """The matrix [n, n] of a local quadratic fit with the tricube kernel at each of `positions`.

    Loess of Cleveland 1979 (doi 10.1080/01621459.1979.10481038) without its robust steps, which
    would not be linear; with fewer than five positions the fit is linear. Position 0 keeps its own
    value: the lower end is a trial that the others are compared with.
    """
    n = len(positions)
    degree = 0 if n < 2 else 1 if n < 5 else 2
    matrix = np.zeros((n, n))
    for row, position in zip(matrix, positions, strict=True):
        away = np.abs(positions - position)
        reach = max(1.001 * np.sort(away)[int(np.ceil(SPAN * n)) - 1], 1e-9)
        weight = np.sqrt(np.maximum(1 - (away / reach) ** 3, 0.0) ** 3)
        powers = (positions - position)[:, None] ** np.arange(degree + 1)
        row[:] = np.linalg.pinv(weight[:, None] * powers)[0] * weight
    matrix[positions == ENDS[0]] = np.eye(n)[positions == ENDS[0]]
    return matrix


def with_dial(info: FrontInfo, lines: list[Line], rule: DegenerateRule | None) -> FrontInfo:
    """The sweep with the positions of its lines, of which barred ones cannot be on the front.

    `rule` says which are degenerate.
    """
    dial = [
        _point(line, number, rule)
        for line in lines
        for number in np.flatnonzero(~np.isin(line.positions, ENDS))
    ]
    if not dial:
        return info
    limits = ((info.sweep.get("config") or {}).get("sweep") or {}).get("constraints") or {}
    points = judged([*info.points, *dial], info.objectives, info.directions, limits=limits)
    volume = info.volume(info.scores([point for point in points if point.eligible]))
    count = len(info.points)
    trials, dial = tuple(points[:count]), tuple(points[count:])
    return replace(info, points=trials, dial=dial, hypervolume_with_dial=volume)


def _point(line: Line, number: int, rule: DegenerateRule | None) -> Point:
    values = {name: float(curve[number]) for name, curve in line.smoothed.items()}
    status = rule.status(values) if rule else "finished"
    return Point(
        trial_id=line.ids[number],
        status="barrier" if line.barred[number] else status,
        reason=None,
        hyperparameters={},
        epoch=None,
        values=values,
        worst_cell=line.worst_cells[number],
    )
