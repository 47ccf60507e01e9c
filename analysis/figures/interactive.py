"""The Pareto front as a page (plotly): self-contained, offline, hover shows the configuration.

    draw_html(info, Path("pareto.html"), bars=bars)
The same `layout.picture` and the same colours as in `figures`; plotly is imported when it is used.
"""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.figures import figures, layout
from analysis.front import FrontInfo, Point
from analysis.statistics import Evidence
from analysis.tables.markup import page


def draw_html(
    info: FrontInfo,
    path: Path,
    *,
    bars: pd.DataFrame | None = None,
    found: Evidence | None = None,
) -> None:
    """Write a page that works offline; hovering shows a trial's configuration and n."""
    picture = layout.picture(info, bars, found)
    plot = _plotly(info, picture).to_html(
        full_html=False, include_plotlyjs=True, config={"displaylogo": False, "responsive": True}
    )
    words = "".join(f"<p class='soft'>{html.escape(line)}</p>" for line in picture.caption)
    text = page(
        picture.title,
        f"{plot}{words}<p class='soft'>Hover over a point to see its "
        "configuration; drag to zoom, double-click to see everything.</p>",
    )
    path.write_text(text, encoding="utf-8")


def _plotly(info: FrontInfo, picture: layout.Picture):
    import plotly.graph_objects as go

    figure = go.Figure()
    if len(picture.band):
        figure.add_scatter(
            x=[-100.0, *picture.band[:, 0], -100.0],
            y=[picture.band[0, 1], *picture.band[:, 1], picture.band[-1, 1]],
            mode="none",
            fill="toself",
            fillcolor=figures.BAND,
            hoverinfo="skip",
            showlegend=False,
        )
    if len(picture.staircase):
        figure.add_scatter(
            x=picture.staircase[:, 0],
            y=picture.staircase[:, 1],
            mode="lines",
            line={"color": figures.BLUE, "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
    for kind in reversed(figures.STYLES):  # the front last, on top
        marks = [mark for mark in picture.marks if figures.style_of(info, mark.point) == kind]
        if marks:
            _trace(figure, info, kind, marks)
    axis = {"gridcolor": "#EDEDED", "zeroline": False, "linecolor": "#BBBBBB"}
    figure.update_xaxes(title=picture.xlabel, range=picture.xlim, **axis)
    figure.update_yaxes(title=picture.ylabel, range=picture.ylim, **axis)
    figure.update_layout(
        height=595,
        margin={"l": 70, "r": 20, "t": 85, "b": 60},
        plot_bgcolor="white",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        font={"family": "system-ui, sans-serif", "color": figures.INK},
        hoverlabel={"align": "left"},
    )
    if not any(mark.point.eligible for mark in picture.marks):
        figure.add_annotation(
            text=figures.nothing(info),
            showarrow=False,
            xref="paper",
            yref="paper",
            x=0.5,
            y=0.5,
            font={"color": figures.SOFT},
        )
    _annotate(figure, picture)
    return figure


def _trace(figure, info: FrontInfo, kind: str, marks: list[layout.Mark]) -> None:
    _, symbol, fill, edge, size, words = figures.STYLES[kind]
    color = edge if fill == "none" or kind == "unfinished" else fill
    bars = {}
    if any(mark.x_bar or mark.y_bar for mark in marks):
        red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
        faint = f"rgba({red},{green},{blue},{figures.BAR_ALPHA})"
        look = {"color": faint, "thickness": 1.2, "width": 0}
        bars = {
            "error_x": {"array": [mark.x_bar for mark in marks], **look},
            "error_y": {"array": [mark.y_bar for mark in marks], **look},
        }
    edge_width = 1.5 if symbol.endswith(("open", "thin")) else 1
    figure.add_scatter(
        x=[mark.x for mark in marks],
        y=[mark.y for mark in marks],
        mode="markers",
        name=words,
        legendrank=list(figures.STYLES).index(kind) + 1,
        marker={
            "symbol": symbol,
            "size": size * 1.5,
            "color": color,
            "line": {"color": color if edge_width > 1 else "white", "width": edge_width},
        },
        text=[hover(info, mark.point) for mark in marks],
        hovertemplate="%{text}<extra></extra>",
        **bars,
    )
    outside = [mark for mark in marks if mark.off]
    if outside:
        symbols = [f"triangle-{mark.off}-open" for mark in outside]
        figure.add_scatter(
            x=[mark.shown_x for mark in outside],
            y=[mark.shown_y for mark in outside],
            mode="markers",
            name=f"{words}, off the picture",
            marker={"symbol": symbols, "size": 11, "color": color, "line": {"width": 1.5}},
            text=[hover(info, mark.point) for mark in outside],
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )


def _annotate(figure, picture: layout.Picture) -> None:
    # The page's plot area is about 900 x 450 pixels; letters of 12 px are about 6.6 px wide.
    named = [mark for mark in picture.marks if mark.point.trial_id in picture.labels]
    low, high = np.array([picture.xlim, picture.ylim], dtype=float).T
    scale = np.array([900.0, 450.0]) / (high - low)
    words = [picture.labels[mark.point.trial_id] for mark in named]
    anchors = np.array([(m.shown_x, m.shown_y) for m in named]).reshape(-1, 2)
    covered = layout.obstacles(picture)
    centres = layout.place_labels(
        [(6.6 * len(word) + 6, 18) for word in words],
        (anchors - low) * scale,
        (covered - low) * scale,
        (0, 0, 900, 450),
    )
    for word, mark, move in zip(words, named, centres - (anchors - low) * scale, strict=True):
        line = {"arrowwidth": 1, "arrowcolor": "#999999", "arrowhead": 0, "standoff": 5}
        where = {"x": mark.shown_x, "y": mark.shown_y, "ax": move[0], "ay": -move[1]}
        figure.add_annotation(text=word, font={"size": 12}, **where, **line)


def hover(info: FrontInfo, point: Point) -> str:
    """What the page shows over a point: id, status, every score with n, and the configuration."""
    lines = [f"<b>{html.escape(point.trial_id)}</b> · {point.kind}"]
    for name, value in point.values.items():
        words, factor, *_ = layout.AXES[name]
        shown = f"{value * factor:.2f}" if np.isfinite(value) else "undefined"
        lines.append(f"{words}: {shown}")
    cell = f", worst in {point.worst_cell}" if point.worst_cell else ""
    lines.append(f"n = {info.sweep.get('n_dev', '?')} dev utterances{cell}")
    settings = [f"{key} = {_short(value)}" for key, value in point.config.items()]
    text = [html.escape(line) if i else line for i, line in enumerate(lines)]
    return "<br>".join(text + ["", *map(html.escape, settings)])


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
