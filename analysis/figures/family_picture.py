"""The picture of fronts by loss: every usable trial, and each family's staircase.

    figures.save(draw(families.families(info, records), info), Path("families.png"))

Its plane is that of pareto.png. What lies far behind all fronts is counted and not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.figures import figures, layout
from analysis.front import FrontInfo
from analysis.statistics.families import Family

# Okabe and Ito's colour-blind-safe set, and a shape for each.
LOOKS = (("#D55E00", "D"), ("#0072B2", "o"), ("#009E73", "s"), ("#CC79A7", "^"), ("#E69F00", "v"))


def draw(families: Sequence[Family], info: FrontInfo):
    """A matplotlib Figure."""
    names = layout.plane(info)
    fronts = [layout.places(family.front, names) for family in families]
    points = [layout.places(family.points, names) for family in families]
    ends = np.concatenate(fronts), np.concatenate(points)
    frame = layout.frame(info, *ends, title="Fronts by loss", caption=())
    low, high = np.transpose([frame.xlim, frame.ylim])
    # Marks are not clipped at the edge, where half of one would look like another shape.
    points = [at[((at >= low) & (at <= high)).all(1)] for at in points]
    hidden = len(ends[1]) - sum(map(len, points))
    figure, axes = figures.framed(replace(frame, caption=caption(info, hidden)), height=0.62)
    for number, family in enumerate(families):
        colour, marker = LOOKS[number % len(LOOKS)]
        look = {"marker": marker, "color": colour}
        axes.scatter(*points[number].T, s=34, alpha=0.35, linewidths=0, clip_on=False, **look)
        axes.plot(*layout.stairs(family.front, names).T, color=colour, linewidth=1.7)
        look["label"] = f"{family.title} ({family.measured})"
        axes.scatter(*fronts[number].T, s=62, edgecolors="white", zorder=5, **look)
    figures.legend(axes, columns=3)
    return figure


def caption(info: FrontInfo, hidden: int) -> tuple[str, ...]:
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
