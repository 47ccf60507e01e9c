"""The report's table of the front: scores in columns, hyperparameters in a line below each trial.

    table = front_table.html(info, bars, evidence)

Hyperparameters in columns of their own would make the table wider than a window, so they stand in a
line below, after the change of the gap in a cell that was named before the sweep. On a narrow
screen each trial is a card of `name value` lines (static/front_table.css). A trial's name is a link
that shows it in the explorer.
"""

from __future__ import annotations

from html import escape

import pandas as pd

from analysis.front import FrontInfo
from analysis.statistics import Evidence
from analysis.tables import tables


def html(info: FrontInfo, bars: pd.DataFrame, evidence: Evidence) -> str:
    """A `<table>` with a `<tbody>` for each trial of the front and for ERM."""
    shown = tables.display(info, bars, evidence)
    if not len(shown):
        return "<p>The front is empty.</p>"
    settings = tables.differing(info.highlighted)
    below = [name for name in (tables.in_cell_title(info),) if name in shown]
    scores = [name for name in shown if name not in ("trial", "", *below, *settings)]
    titles = (escape(name).replace("_", "_<wbr>") for name in ("trial", *scores))
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    bodies = "".join(
        _body(row, scores, [*below, *settings], span=len(scores) + 1)
        for row in shown.to_dict("records")
    )
    return f"<table class='front'><thead><tr>{head}</tr></thead>{bodies}</table>"


def _body(row: dict[str, str], scores: list[str], below: list[str], *, span: int) -> str:
    trial, kind = escape(row["trial"]), row[""]
    note = "" if kind == "front" else f" <span class='soft'>{escape(kind)}</span>"
    values = "".join(
        f"<td data-name='{escape(name)}'>{escape(str(row[name]))}</td>" for name in scores
    )
    config = ", ".join(f"{name} {row[name]}" for name in below if row[name] != "-")
    return (
        f"<tbody><tr><th scope='row'><a href='#explorer' data-trial='{trial}'>{trial}</a>{note}"
        f"</th>{values}</tr><tr><td class='config' colspan='{span}'>{escape(config)}</td></tr>"
        "</tbody>"
    )
