"""The picture of fronts by loss: every usable trial, and each family's staircase.

    draw(families.families(info, records), info, Path("families.png"))

Its axes are those of pareto.png. What lies far behind all fronts is counted and not shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis import figures, front, layout
from analysis.families import Family
from analysis.front import FrontInfo, Point

# Okabe and Ito's colour-blind-safe set, and a shape for each.
LOOKS = (("#D55E00", "D"), ("#0072B2", "o"), ("#009E73", "s"), ("#CC79A7", "^"), ("#E69F00", "v"))
ROOM = 0.8  # shown around the fronts, of what they span


def draw(found: Sequence[Family], info: FrontInfo, path: Path) -> None:
    """Write the picture at 150 dpi."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.3, 6.2), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.185, 0.885, 0.69))
    for number, (family, line) in enumerate(zip(found, stairs(found, info), strict=True)):
        colour, marker = LOOKS[number % len(LOOKS)]
        words = f"{family.words} ({family.measured})"
        look = {"marker": marker, "color": colour}
        axes.scatter(*at(family.points, info).T, s=34, alpha=0.35, linewidths=0, **look)
        axes.plot(*line.T, color=colour, linewidth=1.7)
        front_at = at(family.front, info).T
        axes.scatter(*front_at, s=62, edgecolors="white", label=words, zorder=5, **look)
    hidden = _focus(axes, found, info)
    across, upward = (layout.axis_title(info, name) for name in layout.plane(info))
    axes.set_xlabel(across, color=figures.INK, fontsize=9.5)
    axes.set_ylabel(upward, color=figures.INK, fontsize=9.5)
    axes.grid(color="#EDEDED", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=figures.SOFT, length=0, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.012, 1.0), ncols=3, frameon=False, fontsize=8.5,
        handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    figure.text(0.09, 0.965, f"Fronts by loss: {info.name}", fontsize=13, weight="bold")
    figure.text(0.09, 0.105, caption(info, hidden), fontsize=8, color=figures.SOFT, va="top")
    figure.savefig(path, dpi=150, format="png")


def at(points: Sequence[Point], info: FrontInfo) -> np.ndarray:
    """Where points stand in the picture, in the units of its axes, [points, 2]."""
    names = layout.plane(info)
    return np.array([[p.values[name] * layout.AXES[name][1] for name in names] for p in points])


def stairs(found: Sequence[Family], info: FrontInfo) -> list[np.ndarray]:
    """Border of what each front covers in the picture, arrays [corners, 2] in axis units."""
    signs = dict(zip(info.objectives, info.directions, strict=True))
    directions = [signs[name] for name in layout.plane(info)]
    # Between two points of a front, what is covered is the worse of either in both objectives.
    worse = [max if direction == "min" else min for direction in directions]
    lines = []
    for family in found:
        points = at(family.front, info)
        points = points[front.non_dominated(points, directions=directions)]  # of three objectives
        points = points[np.argsort(points[:, 0], kind="stable")]
        corners = [points[0]]
        for left, right in itertools.pairwise(points):
            corner = [pick(a, b) for pick, a, b in zip(worse, left, right, strict=True)]
            corners += [np.array(corner), right]
        lines.append(np.array(corners))
    return lines


def caption(info: FrontInfo, hidden: int = 0) -> str:
    """What the picture's marks and numbers are; `hidden` usable trials lie outside of it."""
    speakers = f" of {info.speakers} speakers" if info.speakers else ""
    beyond = f" ({hidden} worse ones lie outside the picture)" if hidden else ""
    return (
        "Large marks and steps: each loss's own front; small marks: its other usable trials"
        f"{beyond}.\n"
        "In brackets: the front's hypervolume and one standard error over resampled dev speakers.\n"
        f"{info.sweep.get('n_dev', '?')} dev utterances{speakers}; one seed a trial, chosen on the "
        "utterances that are drawn."
    )


def _focus(axes, found: Sequence[Family], info: FrontInfo) -> int:
    """Show the fronts and as much around as they span; returns how many points are outside."""
    fronts = np.concatenate([at(family.front, info) for family in found])
    points = np.concatenate([at(family.points, info) for family in found])
    low, high = fronts.min(0), fronts.max(0)
    room = np.maximum(high - low, 0.05 * np.abs(high) + 1e-9)
    edge = 0.06 * room
    shown = np.clip([points.min(0), points.max(0)], low - ROOM * room, high + ROOM * room)
    axes.set_xlim(shown[0, 0] - edge[0], shown[1, 0] + edge[0])
    axes.set_ylim(shown[0, 1] - edge[1], shown[1, 1] + edge[1])
    return int(((points < shown[0] - edge) | (points > shown[1] + edge)).any(1).sum())
