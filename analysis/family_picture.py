"""The picture of fronts by loss: every usable trial, and each family's staircase.

    draw(families.families(info, records), info, Path("families.png"))

Its plane is that of pareto.png. What lies far behind all fronts is counted and not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis import figures, front, layout
from analysis.families import Family
from analysis.front import FrontInfo, Point

# Okabe and Ito's colour-blind-safe set, and a shape for each.
LOOKS = (("#D55E00", "D"), ("#0072B2", "o"), ("#009E73", "s"), ("#CC79A7", "^"), ("#E69F00", "v"))


def draw(found: Sequence[Family], info: FrontInfo, path: Path) -> None:
    """Write the picture at 150 dpi."""
    frame = picture(found, info)
    figure, axes = figures.framed(frame, height=0.62)
    for number, (family, line) in enumerate(zip(found, stairs(found, info), strict=True)):
        colour, marker = LOOKS[number % len(LOOKS)]
        words = f"{family.words} ({family.measured})"
        look = {"marker": marker, "color": colour}
        others = at(family.points, info)
        others = others[within(others, frame.xlim, frame.ylim)]  # unclipped: none is cut in half
        axes.scatter(*others.T, s=34, alpha=0.35, linewidths=0, clip_on=False, **look)
        axes.plot(*line.T, color=colour, linewidth=1.7)
        best = at(family.front, info).T
        axes.scatter(*best, s=62, edgecolors="white", label=words, zorder=5, **look)
    figures.legend(axes, columns=3)
    figure.savefig(path, dpi=150, format="png")


def picture(found: Sequence[Family], info: FrontInfo) -> layout.Picture:
    """Axes, title and caption; the marks and the staircases are each family's own."""
    names = layout.plane(info)
    fronts = np.concatenate([at(family.front, info) for family in found])
    points = np.concatenate([at(family.points, info) for family in found])
    xlim, ylim = (
        layout.limits(fronts[:, k], points[:, k], least=layout.AXES[n][2], top=layout.AXES[n][3])
        for k, n in enumerate(names)
    )
    hidden = int((~within(points, xlim, ylim)).sum())
    return layout.Picture(
        marks=(),
        staircase=np.empty((0, 2)),
        xlim=xlim,
        ylim=ylim,
        xlabel=layout.axis_title(info, names[0]),
        ylabel=layout.axis_title(info, names[1]),
        labels={},
        title=f"Fronts by loss: {info.name}",
        caption=caption(info, hidden),
    )


def within(at: np.ndarray, xlim: tuple[float, float], ylim: tuple[float, float]) -> np.ndarray:
    """Which places [n, 2] lie inside the axes, bool [n]."""
    low, high = np.transpose([xlim, ylim])
    return ((at >= low) & (at <= high)).all(1)


def at(points: Sequence[Point], info: FrontInfo) -> np.ndarray:
    """Where points stand in the picture, in the units of its axes, [points, 2]."""
    return layout.places(points, layout.plane(info))


def stairs(found: Sequence[Family], info: FrontInfo) -> list[np.ndarray]:
    """Border of what each front covers in the picture, arrays [corners, 2] in axis units."""
    directions = [layout.direction(info, name) for name in layout.plane(info)]
    lines = []
    for family in found:
        points = at(family.front, info)
        points = points[front.non_dominated(points, directions=directions)]  # of three objectives
        lines.append(layout.corners(points, minimised=directions[0] == "min"))
    return lines


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
