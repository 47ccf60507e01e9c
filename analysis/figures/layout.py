"""The layout of the front's picture: marks, staircase, limits, labels and texts as plain data.

    picture = layout.picture(info, bars)
Axes are in percent and percentage points (losses: nats). Off-scale marks, staircases and label
positions can so be tested; `figures` only draws them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from analysis.front import FrontInfo, Point, caption, choose, front
from analysis.statistics import Evidence
from ermgap.config import METRICS

LETTERS = 130  # of a caption's line


@dataclass(frozen=True)
class Mark:
    """One trial in the units of the axes; `off` is where it leaves the picture ("" inside)."""

    point: Point
    x: float
    y: float
    shown_x: float
    shown_y: float
    off: str
    x_bar: float = 0.0
    y_bar: float = 0.0


@dataclass(frozen=True)
class Picture:
    """What to draw, in the units of the axes."""

    marks: tuple[Mark, ...]
    staircase: np.ndarray  # [k, 2]
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    xlabel: str
    ylabel: str
    labels: dict[str, str]  # by trial id
    title: str
    caption: tuple[str, ...]
    band: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))  # [k, 2], its end, upward
    lines: tuple[np.ndarray, ...] = ()  # of the dial, and of the offsets if any, [k, 2] each


def picture(
    info: FrontInfo, bars: pd.DataFrame | None = None, evidence: Evidence | None = None
) -> Picture:
    """Lay out a front; `bars` (of the front and ERM) as from `uncertainty.standard_errors`.

    `evidence` adds the gaps of fair models, if max_gap is the axis across.
    """
    x, y = plane(info)
    errors = {} if bars is None else bars.set_index("trial_id").to_dict("index")
    points = [p for p in info.candidates if np.isfinite([p.values[x], p.values[y]]).all()]
    at = places(points, (x, y))
    shown = {p.trial_id for p in info.highlighted}
    core = np.array([p.trial_id in shown for p in points], dtype=bool)
    spans = [_bar(None if p.dial else errors.get(p.trial_id), (x, y)) for p in points]
    spans = np.reshape(spans, (-1, 2)) * core[:, None]
    inner = np.concatenate([at[core] - spans[core], at[core] + spans[core]])
    empty = frame(
        info, inner, at, title=f"Accuracy against the gap by {info.attribute.title}", caption=()
    )
    marks = tuple(
        _mark(p, place, span, empty.xlim, empty.ylim)
        for p, place, span in zip(points, at, spans, strict=True)
    )
    band = null_band(info, evidence, (x, y), empty.ylim)
    lines = caption.caption(info, errors=bool(errors), band=len(band) > 0)
    return replace(
        empty,
        marks=marks,
        staircase=stairs(info.front if len(info.objectives) == 2 else (), (x, y)),
        labels=named_points(info),
        caption=tuple(
            part
            for line in (*lines, *_about_the_drawing(info, marks))
            for part in textwrap.wrap(line, LETTERS)
        ),
        band=band,
        lines=tuple(places(points, (x, y)) for points in info.lines),
    )


def frame(
    info: FrontInfo, core: np.ndarray, others: np.ndarray, *, title: str, caption: Sequence[str]
) -> Picture:
    """A picture without marks in the front's plane: its axes, title and caption.

    Args:
        core, others: places [n, 2] in axis units, as `limits` takes them.
    """
    names = plane(info)
    xlim, ylim = (
        limits(core[:, k], others[:, k], least=METRICS[name].least_span, top=METRICS[name].top)
        for k, name in enumerate(names)
    )
    return Picture(
        marks=(),
        staircase=np.empty((0, 2)),
        xlim=xlim,
        ylim=ylim,
        xlabel=info.attribute.metric(names[0]).axis_title,
        ylabel=info.attribute.metric(names[1]).axis_title,
        labels={},
        title=f"{title}: {info.name}",
        caption=tuple(caption),
    )


def null_band(
    info: FrontInfo, evidence: Evidence | None, names: tuple[str, str], ylim: tuple[float, float]
) -> np.ndarray:
    """End of the null band [k, 2] over the whole height: a smooth line through the points' own.

    The band of a point depends on its accuracy and a little on chance: a line is fitted to them.
    """
    x, y = names
    known = [p for p in info.highlighted if evidence and p.trial_id in evidence]
    known = [p for p in known if np.isfinite(evidence[p.trial_id].band.high)]
    if x != "max_gap" or not known:
        return np.empty((0, 2))
    across = np.array([evidence[p.trial_id].band.high for p in known]) * METRICS[x].scale
    upward = np.array([p.values[y] for p in known]) * METRICS[y].scale
    height = np.linspace(*ylim, 20)
    if len(known) < 3 or np.ptp(upward) < 1e-9:
        return np.stack([np.full(20, np.median(across)), height], 1)
    slope, start = np.polyfit(upward, across, 1)
    inside = np.clip(height, upward.min(), upward.max())  # no band is known beyond the points
    return np.stack([start + slope * inside, height], 1)


def plane(info: FrontInfo) -> tuple[str, str]:
    """The two objectives that span the picture: a minimised one across, a maximised one upward."""
    signs = dict(zip(info.objectives, info.directions, strict=True))
    upward = next((name for name in signs if signs[name] == "max"), info.objectives[0])
    others = [name for name in signs if name != upward]
    return next((name for name in others if signs[name] == "min"), others[0]), upward


def limits(
    core: np.ndarray, others: np.ndarray, *, least: float, top: float
) -> tuple[float, float]:
    """Axis limits that hold all of `core` and as much of `others` as leaves the core room.

    Others widen the axis by at most half a core span on either side, so that the core keeps half of
    it; what lies further out is drawn at the edge. `least` is the smallest span, `top` the largest
    possible value; 0 is the smallest. Without a core, the others are the core.
    """
    core = core if len(core) else others
    if not len(core):
        return 0.0, least
    low, high = float(core.min()), float(core.max())
    middle, span = (low + high) / 2, max(high - low, least)
    low, high = min(low, middle - span / 2), max(high, middle + span / 2)
    near = others[(others >= low - span / 2) & (others <= high + span / 2)]
    if len(near):
        low, high = min(low, float(near.min())), max(high, float(near.max()))
    pad = 0.08 * (high - low)
    edge = 0.03 * (high - low)  # a mark at 0 or at the top is not cut in half
    return max(low - pad, -edge), min(high + pad, top + edge)


def stairs(points: Sequence[Point], names: tuple[str, str]) -> np.ndarray:
    """Corners [k, 2] of what points attain in the plane of two objectives; of none, empty."""
    directions = [METRICS[name].direction for name in names]
    at = places(points, names)
    at = at[front.non_dominated(at, directions=directions)]  # a front of three may have others
    return corners(at, minimised=directions[0] == "min") if len(at) else at


def corners(at: np.ndarray, *, minimised: bool) -> np.ndarray:
    """Corners [k, 2] of what places [n, 2] attain, none of which beats another.

    `minimised`: whether the objective across is. Then a step goes across first, else upward first.
    """
    steps = sorted(set(map(tuple, at.tolist())))
    corners = [steps[0]]
    for (x0, y0), (x1, y1) in zip(steps[:-1], steps[1:], strict=True):
        corners += [(x1, y0) if minimised else (x0, y1), (x1, y1)]
    return np.array(corners)


def places(points: Sequence[Point], names: tuple[str, str]) -> np.ndarray:
    """Where points stand in the plane of two objectives, in axis units, [n, 2]."""
    at = [[point.values[name] * METRICS[name].scale for name in names] for point in points]
    return np.reshape(np.array(at, float), (len(points), 2))


def named_points(info: FrontInfo) -> dict[str, str]:
    """At most four labels: ERM, knee, fairest, most accurate; one point's names are joined."""
    names: dict[str, list[str]] = {}
    if info.erm is not None:
        names.setdefault(info.erm.trial_id, []).append("ERM")
    for rule in ("knee", "fairest", "most accurate"):
        trial_id = choose.RULES[rule](info).trial_id
        if trial_id is not None:
            names.setdefault(trial_id, []).append(rule)
    return {trial_id: f"{', '.join(roles)} ({trial_id})" for trial_id, roles in names.items()}


def obstacles(picture: Picture) -> np.ndarray:
    """Places [m, 2] in axis units that a label should leave free: marks, bars and lines."""
    places = [(mark.shown_x, mark.shown_y) for mark in picture.marks]
    steps = np.linspace(-1, 1, 41)
    for mark in picture.marks:
        places += [(mark.x + s * mark.x_bar, mark.y) for s in steps if mark.x_bar]
        places += [(mark.x, mark.y + s * mark.y_bar) for s in steps if mark.y_bar]
    for line in (picture.staircase, *picture.lines):
        for start, end in zip(line[:-1], line[1:], strict=True):
            places += list(np.linspace(start, end, 40))
    return np.reshape(places, (-1, 2))


def place_labels(
    sizes: Sequence[tuple[float, float]],
    anchors: np.ndarray,
    obstacles: np.ndarray,
    frame: tuple[float, float, float, float],
) -> np.ndarray:
    """Centres [n, 2] of label boxes of `sizes` [n] (width, height), in pixels.

    Each box is put near its anchor [n, 2], inside `frame` (x0, y0, x1, y1) and off every box
    already placed; among such places, the one that covers fewest `obstacles` [m, 2], then the
    nearest.
    """
    boxes: list[np.ndarray] = []
    for size, anchor in zip(sizes, np.reshape(anchors, (-1, 2)), strict=True):
        half = np.asarray(size) / 2 + 3
        centres = _candidates(anchor, half)
        low, high = centres - half, centres + half
        outside = (low < frame[:2]).any(1) | (high > frame[2:]).any(1)
        placed = np.reshape(boxes, (-1, 4))
        clash = ((low[:, None] < placed[:, 2:]) & (high[:, None] > placed[:, :2])).all(-1).sum(1)
        inside = (obstacles[None] > low[:, None] - 4) & (obstacles[None] < high[:, None] + 4)
        covered = inside.all(-1).sum(1)
        far = np.linalg.norm(centres - anchor, axis=1)
        best = np.lexsort((far, covered, outside, clash))[0]
        boxes.append(np.concatenate([low[best], high[best]]))
    return np.array([(box[:2] + box[2:]) / 2 for box in boxes]).reshape(-1, 2)


def _about_the_drawing(info: FrontInfo, marks: Sequence[Mark]) -> list[str]:
    """What a reader of this drawing must know; at most two sentences."""
    notes = []
    if any(mark.off for mark in marks):
        notes.append("Triangles at an edge stand for points outside the picture.")
    if len(info.objectives) > 2:
        other = next(name for name in info.objectives if name not in plane(info))
        notes.append(f"Not drawn, but part of the front: {info.attribute.metric(other).label}.")
    return notes


def _candidates(anchor: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Box centres all around the anchor: on an ellipse, and with a corner next to the anchor."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corners = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    reaches = (12, 24, 40, 60, 90, 130)
    around = [ring * (half + reach) for reach in reaches]
    beside = [corners * (half + (a, b)) for a in reaches[:4] for b in reaches[:4]]
    return anchor + np.concatenate(around + beside)


def _mark(point: Point, place, span, xlim, ylim) -> Mark:
    low, high = np.transpose([xlim, ylim])
    beyond = np.maximum(low - place, place - high) / (high - low)
    off, shown, inset = "", place, 0.02 * (high - low)
    if (beyond > 0).any():
        shown = np.clip(place, low + inset, high - inset)
        axis = int(np.argmax(beyond))
        off = (("left", "right"), ("down", "up"))[axis][int(place[axis] > high[axis])]
    return Mark(point, *map(float, place), *map(float, shown), off, *map(float, span))


def _bar(errors: Mapping | None, names: tuple[str, str]) -> list[float]:
    """Half lengths of a point's bars in axis units; 0 where there is none."""
    values = [(errors or {}).get(f"{name}_se", 0.0) * METRICS[name].scale for name in names]
    return [value if np.isfinite(value) else 0.0 for value in values]
