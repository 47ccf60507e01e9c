"""The Pareto front as a picture (matplotlib).

    draw_files(info, Path("analysis/plots/demo"), bars=bars)
`layout.picture` decides what is drawn where; matplotlib is imported when it is used.
Colours are of Okabe and Ito's colour-blind-safe set; every kind also has a shape of its own.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.figures import layout
from analysis.front import FrontInfo, Point
from analysis.statistics import Evidence
from ermgap.config import METRICS
from ermgap.records import write_atomically

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PEACH, MINT = "#F0B890", "#9AD4C2"
BAND = "#F1F1EE"
GREY, PALE, INK, SOFT = "#9A9A9A", "#BDBDBD", "#222222", "#6B6B6B"


class Style(NamedTuple):
    """How the marks of a kind look: matplotlib's marker, colours, size in points, and title."""

    marker: str
    fill: str
    edge: str
    size: float
    title: str


STYLES = {
    "front": Style("o", BLUE, "white", 9, "front"),
    "erm": Style("D", ORANGE, "white", 8.5, "ERM (no fairness term)"),
    "other_erm": Style("D", PEACH, "white", 6.5, "ERM, dominated"),
    "dial_front": Style("o", GREEN, "white", 6, "dial"),
    "dominated": Style("o", PALE, "white", 7, "dominated"),
    "dial": Style("o", MINT, "white", 4.5, "dial, dominated"),
    "barrier": Style("x", MINT, MINT, 4, "in a barrier"),
    "degenerate": Style("o", "none", GREY, 7, "degenerate"),
    "outside": Style("s", "none", GREY, 6.5, "outside the constraints"),
    "unfinished": Style("x", PALE, PALE, 5, "not finished"),
}
BAR_ALPHA = 0.3
ARROWS = {"left": "<", "right": ">", "up": "^", "down": "v"}


def style_of(info: FrontInfo, point: Point) -> str:
    """The key in STYLES of a point: `erm` for the baseline and for every ERM on the front."""
    if point.dial and point.eligible:
        return "dial_front" if point.on_front else "dial"
    if point.eligible and point.is_erm:
        return "erm" if point.on_front or point is info.erm else "other_erm"
    return point.kind if point.kind in STYLES else "unfinished"


def draw_files(
    info: FrontInfo,
    folder: Path,
    *,
    bars: pd.DataFrame | None = None,
    evidence: Evidence | None = None,
    untrained: pd.DataFrame | None = None,
) -> None:
    """Write the picture as pareto.png (1245 x 930 pixels), .svg and .pdf.

    Args:
        untrained: as from `statistics.offsets.line`.
    """
    figure, _ = draw(info, bars=bars, evidence=evidence, untrained=untrained)
    for kind in ("png", "svg", "pdf"):
        save(figure, folder / f"pareto.{kind}")


def save(figure, path: Path) -> None:
    """Write a figure at 150 dpi, in the format that the path ends on."""
    write_atomically(path, lambda p: figure.savefig(p, dpi=150, format=path.suffix[1:]))


def front_array(info: FrontInfo, *, bars: pd.DataFrame | None = None) -> np.ndarray:
    """The same picture as uint8 [H, W, 3] (620 x 830)."""
    figure, _ = draw(info, bars=bars)
    figure.set_dpi(100)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def draw(
    info: FrontInfo,
    *,
    bars: pd.DataFrame | None = None,
    evidence: Evidence | None = None,
    untrained: pd.DataFrame | None = None,
):
    """A matplotlib Figure of the front and the list of its label artists."""
    picture = layout.picture(info, bars, evidence)
    figure, axes = framed(picture)
    if len(picture.band):
        axes.fill_betweenx(
            picture.band[:, 1], -100.0, picture.band[:, 0], color=BAND, linewidth=0, zorder=0.3
        )
    if len(picture.staircase):
        axes.plot(*picture.staircase.T, color=BLUE, linewidth=1.6, alpha=0.75, zorder=2)
    for line in picture.lines:
        axes.plot(*line.T, color=GREEN, linewidth=0.9, alpha=0.8, zorder=1.9)
    if len(line := _offsets(info, untrained)):
        axes.plot(*line.T, color=ORANGE, linewidth=1, zorder=1.8, label="ERM with offsets")
        picture = replace(picture, lines=(*picture.lines, line))
    marks(axes, info, picture)
    if not any(mark.point.eligible for mark in picture.marks):
        reason = "no finished trial is usable" if info.complete else "no finished trial yet"
        axes.text(0.5, 0.93, reason, transform=axes.transAxes, ha="center", color=SOFT)
    legend(axes)
    return figure, label(axes, picture)


def _offsets(info: FrontInfo, untrained: pd.DataFrame | None) -> np.ndarray:
    """The baseline without training [k, 2] in axis units; empty without the axes' scores."""
    names = layout.plane(info)
    if untrained is None or not set(names) <= set(untrained):
        return np.empty((0, 2))
    usable = untrained.loc[~untrained["degenerate"], list(names)]
    return usable.to_numpy() * [METRICS[name].scale for name in names]


def framed(picture: layout.Picture, *, height: float = 0.65):
    """An empty matplotlib Figure with the picture's axes, title and caption, and its Axes.

    `height` of the axes is a share of the figure's; what they leave above holds the legend.
    """
    figure = empty((8.3, 6.2))
    axes = figure.add_axes((0.09, 0.24, 0.885, height))
    dress(axes, picture)
    size = 13 * min(1.0, 66 / len(picture.title))
    figure.text(0.09, 0.95, picture.title, fontsize=size, weight="bold", color=INK)
    lines, size = "\n".join(picture.caption), 8 * min(1.0, 6 / max(len(picture.caption), 1))
    figure.text(0.09, 0.15, lines, fontsize=size, color=SOFT, va="top", linespacing=1.4)
    return figure, axes


def empty(inches: tuple[float, float]):
    """A matplotlib Figure on white, width and height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress(axes, picture: layout.Picture, *, letters: int = 100) -> None:
    """Limits, titles (of that many letters a line, or 60 upward), grid and colours of axes."""
    axes.set(xlim=picture.xlim, ylim=picture.ylim)
    axes.set_xlabel(textwrap.fill(picture.xlabel, letters), color=INK, fontsize=10)
    axes.set_ylabel(textwrap.fill(picture.ylabel, 60), color=INK, fontsize=10)
    axes.grid(color="#EDEDED", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, length=0, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")


def marks(axes, info: FrontInfo, picture: layout.Picture) -> None:
    """Draw the picture's marks with their bars, kind by kind."""
    for kind in STYLES:
        _kind(axes, kind, [m for m in picture.marks if style_of(info, m.point) == kind])


def _kind(axes, kind: str, marks: list[layout.Mark]) -> None:
    """Draw all marks of a kind, with their bars; the front lies on top."""
    marker, fill, edge, size, title = STYLES[kind]
    order = 10 - list(STYLES).index(kind)
    look = {"s": size**2, "zorder": order, "clip_on": False, "linewidths": 1.1}
    look |= {"color": edge} if marker == "x" else {"facecolors": fill, "edgecolors": edge}
    if marks:
        axes.scatter([], [], marker=marker, label=title, **look)
    shapes: dict[str, list[tuple[float, float]]] = {}
    for mark in marks:
        shapes.setdefault(ARROWS.get(mark.off, marker), []).append((mark.shown_x, mark.shown_y))
        if mark.x_bar or mark.y_bar:
            bars = {"xerr": mark.x_bar or None, "yerr": mark.y_bar or None, "fmt": "none"}
            look_of_bars = {"color": fill, "alpha": BAR_ALPHA, "linewidth": 1.1, "zorder": 2.5}
            axes.errorbar(mark.x, mark.y, **bars, **look_of_bars)
    for shape, at in shapes.items():
        axes.scatter(*np.transpose(at), marker=shape, **look)


def legend(axes, *, columns: int = 6) -> None:
    """The legend above the axes, which give room to a second row; none without labels."""
    where = {"loc": "lower left", "bbox_to_anchor": (-0.012, 1.0)}
    look = {"handletextpad": 0.2, "columnspacing": 1.2, "frameon": False}
    look |= {"fontsize": 8.5, "labelcolor": INK}
    count = len(axes.get_legend_handles_labels()[0])
    if not count:
        return
    row = axes.legend(**where, **look, ncols=columns)
    renderer = axes.figure.canvas.get_renderer()
    if count > columns or row.get_window_extent(renderer).x1 > axes.figure.bbox.x1:
        axes.legend(**where, **look, ncols=-(-count // 2))
        place = axes.get_position()
        axes.set_position((place.x0, place.y0, place.width, 0.62))


def label(axes, picture: layout.Picture) -> list:
    """Write the labels with leaders where they cover nothing, and return them."""
    named = {m.point.trial_id: m for m in picture.marks if m.point.trial_id in picture.labels}
    look = {"fontsize": 9, "color": INK, "ha": "center", "va": "center", "zorder": 20}
    texts = [axes.text(0, 0, picture.labels[name], **look) for name in named]
    renderer = axes.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts]
    to_pixels, frame = axes.transData, axes.get_window_extent(renderer)
    anchors = to_pixels.transform([(m.shown_x, m.shown_y) for m in named.values()]) if named else []
    covered = to_pixels.transform(layout.obstacles(picture)) if picture.marks else np.empty((0, 2))
    centres = layout.place_labels(
        [(b.width, b.height) for b in boxes],
        np.array(anchors),
        covered,
        (frame.x0, frame.y0, frame.x1, frame.y1),
    )
    for text, mark, centre in zip(texts, named.values(), centres, strict=True):
        place = to_pixels.inverted().transform(centre)
        text.set_position(place)
        line = {"arrowstyle": "-", "color": "#999999", "lw": 0.8, "shrinkB": 5, "patchA": text}
        ends = {"xy": (mark.shown_x, mark.shown_y), "xytext": place}
        axes.annotate("", **ends, zorder=2.2, arrowprops=line)
    return texts
