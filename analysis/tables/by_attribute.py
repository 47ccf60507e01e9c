"""Gaps by every attribute of the predictions, whichever drove the training.

    table = by_attribute.table(info, predictions, **classes_of(records))   # None: there is but one
    for line in by_attribute.warnings(info, table): print(line)

A model that was made fair for one attribute may have become unfair for another: each has its
largest gap, the bound of that and its paired difference to ERM, as the driving one has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

from analysis.front import Attribute, FrontInfo
from analysis.statistics import SpeakerSums, evidence, intervals, largest_gap, paired
from analysis.tables.cards import cards
from ermgap import attributes, metrics
from ermgap.errors import UserError

MOST_SIDES = 8  # of which pairs are searched for a bound: more would take minutes
CHANGE = ("change", "change_low", "change_high")


def table(
    info: FrontInfo,
    predictions: Mapping[str, pd.DataFrame],
    *,
    labels: Sequence[str],
    attribute: Sequence[str],
    **support: int | None,
) -> pd.DataFrame | None:
    """A row an attribute and point, fractions; the driving attribute first. None without others.

    Columns: attribute, provenance, trial_id, max_gap, at_most (its bound), worst_cell, lowest and
    highest (the sides of the least and the largest accuracy there), lowest_acc, highest_acc,
    change, change_low, change_high (max_gap less ERM's, paired), note (the same for all rows of an
    attribute: sides that are not estimable, with counts).

    Args:
        predictions: on dev by trial id, ERM's first.
        labels, attribute, support: as for `metrics.evaluate`; `attribute` is the driving one.
    """
    if not predictions:
        return None
    first = next(iter(predictions.values()))
    others = {(name,) for name in (*attributes.columns(first), *attribute)} - {tuple(attribute)}
    if not others:
        return None
    rows = []
    for columns in (tuple(attribute), *sorted(others)):
        named = info.attribute.other(columns)
        try:
            note, sides = estimable(first, named, labels=labels, **support)
            measured = _measured(
                predictions, info, labels=labels, attribute=columns, sides=sides, **support
            )
        except UserError as problem:
            note, measured = str(problem), []
        about = {"attribute": named.title, "provenance": named.provenance, "note": note}
        rows += [about | row for row in measured or [{"trial_id": None, "max_gap": np.nan}]]
    return pd.DataFrame(rows)


def estimable(
    table: pd.DataFrame,
    attribute: Attribute,
    *,
    labels: Sequence[str],
    min_support: int,
    cell_support: int | None,
    speaker_support: int,
) -> tuple[str, tuple[str, ...]]:
    """A sentence on the sides that are not estimable, if any, and the sides that some gap counts.

    Raises UserError for a table that cannot be read.
    """
    coded = metrics.encode(table, labels=labels, attribute=attribute.columns)
    counts, unknown = metrics.confusions(coded)
    n, heard = counts.sum((-2, -1)), metrics.speakers_of_sides(table, coded)
    least = metrics.minimum_per_side(min_support=min_support, cell_support=cell_support)
    compared = metrics.Compared.of(
        counts,
        min_support=min_support,
        cell_support=cell_support,
        speaker_support=speaker_support,
        speakers=heard,
    )
    few = (n > 0) & ((n < least) | (heard < speaker_support))
    named = [
        f"{coded.sides[side]} in {coded.cells[cell]} ({n[cell, side]:g} utterances, "
        f"{heard[cell, side]} speaker{'' if heard[cell, side] == 1 else 's'})"
        for cell, side in zip(*np.nonzero(few), strict=True)
    ]
    notes = [f"Not estimable: {', '.join(named)}."] if named else []
    lone = [
        f"{coded.sides[int(there.argmax())]} in {coded.cells[cell]}"
        for cell, there in enumerate(n > 0)
        if there.sum() == 1
    ]
    if lone:
        notes.append(f"There is no gap where a side is alone: {', '.join(lone)}.")
    if unknown.any():
        notes.append(f"{unknown.sum():g} utterances are of unknown {attribute.title}.")
    if not compared.counted.any():
        notes.append("No cell has two sides that can be compared, so no gap is defined.")
    used = compared.sides[compared.counted].any(0)
    return " ".join(notes), tuple(np.array(coded.sides, dtype=object)[used])


def _measured(
    predictions: Mapping[str, pd.DataFrame], info: FrontInfo, *, sides: Sequence[str], **asked
) -> list[dict]:
    """The rows of one attribute, without what they have in common."""
    if not sides:
        return []
    sums = SpeakerSums.of(predictions, sides=sides, omitted={}, **asked)
    erm = info.erm.trial_id if info.erm is not None else None
    bounded = len(sides) <= MOST_SIDES
    weights = sums.draws(evidence.RESAMPLES if bounded else 1, np.random.default_rng(0))
    scores = {name: paired.scores(sums, name, weights) for name in sums.counts} if bounded else {}
    gaps = {name: float(largest_gap(sums.observed(name))) for name in sums.counts}
    rows = []
    for name in sums.counts:
        cell, rates = evidence.worst_cell(sums, name)
        row = {"trial_id": name, "max_gap": gaps[name], "worst_cell": cell}
        if bounded:
            row["at_most"] = intervals.max_gap_interval(sums, name, weights).at_most
        for end, pick in (("lowest", min), ("highest", max)):
            row[end] = pick(rates, key=rates.get, default=None)
            row[f"{end}_acc"] = rates.get(row[end], np.nan)
        if erm in gaps and name != erm:
            row["change"] = gaps[name] - gaps[erm]
            if bounded:
                change = paired.difference(sums, scores[name], scores[erm])["max_gap"]
                row |= zip(CHANGE, (change.value, change.low, change.high), strict=True)
        rows.append(row)
    return rows


def warnings(info: FrontInfo, table: pd.DataFrame | None) -> list[str]:
    """Which points of the front lowered the driving attribute's gap and raised another's."""
    if table is None or "change" not in table:
        return []
    changes = table.set_index(["trial_id", "attribute"])
    lines = []
    for point in info.front:
        if point.trial_id not in changes.index.get_level_values(0):
            continue
        mine = changes.loc[point.trial_id]
        raised = mine.drop(index=info.attribute.title, errors="ignore").query("change > 0")
        lowered = mine["change"].get(info.attribute.title, np.nan)
        if lowered < 0 and len(raised):
            listed = " and ".join(_raised(name, row) for name, row in raised.iterrows())
            lines.append(
                f"{point.trial_id} lowered ERM's gap by {info.attribute.title}, by "
                f"{-100 * lowered:.1f} points as measured, but its gap by {listed}."
            )
    return lines


def summary(info: FrontInfo, table: pd.DataFrame | None) -> list[str]:
    """One sentence on how many points `warnings` is about, where it is about any."""
    count = len(warnings(info, table))
    if not count:
        return []
    return [
        f"Fairer by {info.attribute.title} is not fairer by all: {count} of the front's "
        f"{len(info.front)} points have a smaller gap by {info.attribute.title} than ERM and a "
        "larger one by another attribute (see Gaps by every attribute)."
    ]


def _raised(name: str, row: pd.Series) -> str:
    sure = "surely larger" if row.get("change_low", np.nan) > 0 else "larger as measured"
    return f"{name} is {sure} ({_change(row)} points)"


def html(info: FrontInfo, table: pd.DataFrame | None) -> str:
    """The section of a report; empty without a table."""
    if table is None:
        return ""
    body = (
        "<h2>Gaps by every attribute</h2><p class='soft'>Whichever attribute the training was "
        f"about ({escape(info.attribute.title)}), on dev: the largest gap over cells, its bound at "
        "95 % confidence, the paired change against ERM with bounds of 95 % each, and the sides of "
        f"the lowest and the highest accuracy where it is largest. {_OF_THE_DIAL * bool(info.dial)}"
        "</p>"
    )
    body += "".join(f"<p>{escape(line)}</p>" for line in warnings(info, table))
    for name, rows in table.groupby("attribute", sort=False):
        of = rows["provenance"].iloc[0]
        body += f"<h3>By {escape(name)} <span class='soft'>provenance: {escape(of)}</span></h3>"
        known = rows.dropna(subset=["trial_id"])
        body += cards([_shown(row) for _, row in known.iterrows()]) if len(known) else ""
        note = rows["note"].iloc[0]
        body += f"<p class='soft'>{escape(note)}</p>" if note else ""
    return body


_OF_THE_DIAL = "A position of the dial counts with its own predictions here, not with its curve."


def _shown(row: pd.Series) -> dict[str, str]:
    return {
        "trial": row["trial_id"],
        "gap": _points(row["max_gap"]),
        "at most": _points(row.get("at_most", np.nan)),
        "against ERM": _change(row),
        "worst in": row["worst_cell"] or "-",
        "lowest side": _side(row, "lowest"),
        "highest side": _side(row, "highest"),
    }


def _side(row: pd.Series, end: str) -> str:
    return f"{row[end]} {_points(row[f'{end}_acc'])} %" if row[end] else "-"


def _change(row: pd.Series) -> str:
    """A change in points with its bounds, `-` without."""
    value, *bounds = (100 * row.get(name, np.nan) for name in CHANGE)
    if not np.isfinite(value):
        return "-"
    known = f" [{bounds[0]:+.1f}, {bounds[1]:+.1f}]" if np.isfinite(bounds).all() else ""
    return f"{value:+.1f}{known}".replace("-", "\N{MINUS SIGN}")


def _points(value: float) -> str:
    return f"{100 * value:.1f}" if np.isfinite(value) else "-"
