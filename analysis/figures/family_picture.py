"""The picture of fronts by loss: every usable trial, and each family's staircase.

    draw(families.families(info, records), info, Path("families.png"))

Its plane is that of pareto.png. What lies far behind all fronts is counted and not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.figures import figures, layout
from analysis.front import FrontInfo, Point, front
from analysis.statistics.families import Family
from ermgap.config import METRICS

# Okabe and Ito's colour-blind-safe set, and a shape for each.
LOOKS = (("#D55E00", "D"), ("#0072B2", "o"), ("#009E73", "s"), ("#CC79A7", "^"), ("#E69F00", "v"))


def draw(families: Sequence[Family], info: FrontInfo, path: Path) -> None:
    """Write the picture at 150 dpi."""
    frame = picture(families, info)
    figure, axes = figures.framed(frame, height=0.62)
    for number, family in enumerate(families):
        colour, marker = LOOKS[number % len(LOOKS)]
        look = {"marker": marker, "color": colour}
        others = at(family.points, info)
        others = others[within(others, frame.xlim, frame.ylim)]  # unclipped: none is cut in half
        axes.scatter(*others.T, s=34, alpha=0.35, linewidths=0, clip_on=False, **look)
        axes.plot(*stairs(family.front, info).T, color=colour, linewidth=1.7)
        best = at(family.front, info).T
        axes.scatter(
            *best,
            s=62,
            edgecolors="white",
            label=f"{family.title} ({family.measured})",
            zorder=5,
            **look,
        )
    figures.legend(axes, columns=3)
    figure.savefig(path, dpi=150, format="png")


def picture(families: Sequence[Family], info: FrontInfo) -> layout.Picture:
    """Axes, title and caption; the marks and the staircases are each family's own."""
    fronts = np.concatenate([at(family.front, info) for family in families])
    points = np.concatenate([at(family.points, info) for family in families])
    made = layout.frame(info, fronts, points, title="Fronts by loss", caption=())
    hidden = int((~within(points, made.xlim, made.ylim)).sum())
    return replace(made, caption=caption(info, hidden))


def within(at: np.ndarray, xlim: tuple[float, float], ylim: tuple[float, float]) -> np.ndarray:
    """Which places [n, 2] lie inside the axes, bool [n]."""
    low, high = np.transpose([xlim, ylim])
    return ((at >= low) & (at <= high)).all(1)


def at(points: Sequence[Point], info: FrontInfo) -> np.ndarray:
    """Where points stand in the picture, in the units of its axes, [points, 2]."""
    return layout.places(points, layout.plane(info))


def stairs(points: Sequence[Point], info: FrontInfo) -> np.ndarray:
    """Border of what a front covers in the picture, [corners, 2] in axis units; of none, empty."""
    directions = [METRICS[name].direction for name in layout.plane(info)]
    places = at(points, info)
    if not len(places):
        return places
    places = places[front.non_dominated(places, directions=directions)]  # of three objectives
    return layout.corners(places, minimised=directions[0] == "min")


def caption(info: FrontInfo, hidden: int = 0) -> tuple[str, ...]:
    """What the picture's marks and numbers are; `hidden` usable trials lie outside of it."""
    speakers = f" of {info.speakers} speakers" if info.speakers else ""
    beyond = f" (worse ones outside the picture: {hidden})" if hidden else ""
    return (
        "Large marks and steps: each loss's own front; small marks: its other usable trials"
        f"{beyond}.",
        "In brackets: the front's hypervolume and one standard error over resampled dev speakers.",
        f"{info.sweep.get('n_dev', '?')} dev utterances{speakers}; one seed a trial, chosen on the "
        "utterances that are drawn.",
    )
