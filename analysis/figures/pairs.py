"""Three objectives, two at a time: the same trials in the plane of each pair.

    figures.save(draw(info, bars=bars), Path("pairs.png"))

With three objectives a point of the front may lie inside another's step in every single plane, so
there is no staircase here; a trial is followed from plane to plane by its label.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.figures import figures, layout
from analysis.front import FrontInfo


def draw(info: FrontInfo, *, bars: pd.DataFrame | None = None):
    """A matplotlib Figure (2070 x 810 pixels) of a sweep with three objectives."""
    figure = figures.empty((13.8, 5.4))
    named = layout.named_points(info)
    for number, flat in enumerate(planes(info)):
        picture = replace(layout.picture(flat, bars), labels=named, staircase=np.empty((0, 2)))
        axes = figure.add_axes((0.05 + number * 0.325, 0.2, 0.27, 0.66))
        figures.dress(axes, picture, letters=60)
        axes.xaxis.label.set_fontsize(8.5)  # the longest title is as wide as a panel
        axes.yaxis.label.set_fontsize(8.5)
        figures.marks(axes, info, picture)
        figures.label(axes, picture)
        if not number:
            figures.legend(axes, columns=len(figures.STYLES))
    figure.text(0.05, 0.94, f"Three objectives: {info.name}", fontsize=13, weight="bold",
                color=figures.INK)  # fmt: skip
    notes = "The same trials in the plane of each pair; the front is that of all three objectives."
    if bars is not None and len(bars):
        notes += " Bars: one standard error over resampled dev speakers."
    figure.text(0.05, 0.04, notes, fontsize=8, color=figures.SOFT)
    return figure


def planes(info: FrontInfo) -> list[FrontInfo]:
    """The sweep through each pair of its objectives; its points and its front are as before."""
    better = dict(zip(info.objectives, info.directions, strict=True))
    limits = dict(zip(info.objectives, info.reference, strict=True))
    return [
        replace(
            info,
            objectives=pair,
            directions=tuple(better[name] for name in pair),
            reference=tuple(limits[name] for name in pair),
        )
        for pair in itertools.combinations(info.objectives, 2)
    ]
