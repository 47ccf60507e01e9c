"""A table of the page that is one card a row on a narrow screen (static/front_table.css)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape


def cards(rows: Sequence[Mapping[str, str]]) -> str:
    """A `<table>` of rows with the same columns; `trial` is a link that the explorer shows."""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in rows[0])
    return (
        f"<table class='front'><thead><tr>{head}</tr></thead><tbody>"
        + "</tbody><tbody>".join(map(_row, rows))
        + "</tbody></table>"
    )


def _row(row: Mapping[str, str]) -> str:
    trial, *rest = row.items()
    name = escape(trial[1])
    values = "".join(f"<td data-name='{escape(n)}'>{escape(value)}</td>" for n, value in rest)
    return (
        f"<tr><th scope='row'><a href='#explorer' data-trial='{name}'>{name}</a></th>{values}</tr>"
    )
