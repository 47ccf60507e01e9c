"""The tables of a report: every trial, the front with its evidence, and summary.json.

table = trials(info, bars)
shown = display(info, bars, evidence)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.front import FrontInfo, Point, choose
from analysis.statistics import Evidence, PointEvidence
from analysis.statistics.paired import PairedDifference
from analysis.tables.markup import latex
from ermgap.config import METRICS

PLOTS = Path("analysis/plots")
ENDS = "lowest/highest side"


def trials(info: FrontInfo, bars: pd.DataFrame) -> pd.DataFrame:
    """One row a trial or position of the dial: what it is, its scores and its configuration.

    Scores are in fractions and nats, those of the dial by its smoothed curves.

    Columns: trial_id, kind, status, reason, front, degenerate, epoch, the objectives first and then
    the other scores, acc_se, max_gap_se, worst_cell, and `config.<name>` for each hyperparameter.
    """
    names = [*info.objectives, *(name for name in METRICS if name not in info.objectives)]
    rows = [
        {
            "trial_id": p.trial_id,
            "kind": p.kind,
            "status": p.status,
            "reason": p.reason,
            "front": p.on_front,
            "degenerate": p.degenerate,
            "epoch": p.epoch,
            **{name: p.values[name] for name in names},
            "worst_cell": p.worst_cell,
            **{f"config.{key}": _plain(value) for key, value in p.hyperparameters.items()},
        }
        for p in info.candidates
    ]
    table = pd.DataFrame(rows).merge(bars.drop(columns="lone_speakers"), on="trial_id", how="left")
    # Parquet has one type a column; a hyperparameter may be a number here and a word there.
    for column in (name for name in table if pd.api.types.is_object_dtype(table[name])):
        if table[column].dropna().map(type).nunique() > 1:
            table[column] = table[column].map(str, na_action="ignore")
    return table.astype({"front": bool, "degenerate": bool, "epoch": "Int64"})


def summary(
    info: FrontInfo, bars: pd.DataFrame, evidence: Evidence | None = None
) -> dict[str, object]:
    """What summary.json holds: front, hypervolume, reference point, choices, ERM, counts, n_dev."""
    errors = bars.set_index("trial_id").to_dict("index")
    choices = {name: rule(info, evidence) for name, rule in choose.rules(info).items()}
    under = choices[f"gap at most {100 * choose.GAP_LIMIT:g}"]
    return {
        "name": info.name,
        "finished": info.done,
        "trials": {"planned": info.planned, "complete": info.complete, "by_kind": info.counts},
        "by_status": pd.Series([p.status for p in info.points]).value_counts().to_dict(),
        "n_dev": info.sweep.get("n_dev"),
        "dev_speakers": info.speakers,
        "synthetic": list(info.sweep.get("synthetic") or []),
        "cells": info.cells,
        "cells_left_out_of_max_gap": info.uncounted,
        "objectives": dict(zip(info.objectives, info.directions, strict=True)),
        "reference_point": dict(zip(info.objectives, info.reference, strict=True)),
        "hypervolume": info.hypervolume,
        **({"hypervolume_with_dial": info.hypervolume_with_dial} if info.dial else {}),
        "floor": info.floor,
        "majority_rate": info.majority_rate,
        "front": [_brief(point, errors) for point in info.front],
        "erm": _brief(info.erm, errors),
        "knee": _brief(info.find(choices["knee"].trial_id), errors),
        "most_accurate": _brief(info.find(choices["most accurate"].trial_id), errors),
        "fairest": _brief(info.find(choices["fairest"].trial_id), errors),
        "best_under": {f"{choose.GAP_LIMIT:g}": _limited(info, under)},
        "choices": {name: asdict(choice) for name, choice in choices.items()},
        "evidence": evidence.plain() if evidence is not None else None,
        "bars": "one standard error over resampled speakers, no 95 % interval",
    }


def display(
    info: FrontInfo, bars: pd.DataFrame, evidence: Evidence | None = None, *, wide: bool = True
) -> pd.DataFrame:
    """The front and the ERM baseline as text: percent, points, and what sets them apart."""
    errors = bars.set_index("trial_id").to_dict("index")
    settings = differing(info.highlighted)
    sides = accuracies_title(evidence) if evidence else ""
    rows = []
    for point in info.highlighted:
        row = {"trial": point.trial_id, "": "front" if point.on_front else "(ERM, dominated)"}
        for name in dict.fromkeys([*info.objectives, "acc", "max_gap", *(["w_f1"] * wide)]):
            row[f"{name} {METRICS[name].unit}"] = _cell(name, point, errors)
        if own := evidence and evidence.get(point.trial_id):
            row |= _evidence_columns(info, own)
            row |= {"worst in": own.cell or "-", sides: _accuracies(own, sides)} if wide else {}
        row |= {key: _setting(point.hyperparameters.get(key)) for key in settings}
        rows.append(row)
    return pd.DataFrame(rows).fillna("-")


def differing(points: Sequence[Point]) -> list[str]:
    """The hyperparameters in which the points differ, and the loss."""
    names = dict.fromkeys(name for point in points for name in point.hyperparameters)
    return [
        n for n in names if n == "loss" or len({str(p.hyperparameters.get(n)) for p in points}) > 1
    ]


def _brief(point: Point | None, errors: Mapping) -> dict | None:
    if point is None:
        return None
    se = errors.get(point.trial_id, {})
    return {
        "trial_id": point.trial_id,
        "epoch": point.epoch,
        **point.values,
        "worst_cell": point.worst_cell,
        "acc_se": se.get("acc_se"),
        "max_gap_se": se.get("max_gap_se"),
        "config": point.hyperparameters,
    }


def _limited(info: FrontInfo, choice: choose.Choice) -> dict:
    point = info.find(choice.trial_id or choice.nearest)
    return {
        "trial_id": choice.trial_id,
        "nearest": choice.nearest,
        "acc": point.values["acc"] if point else None,
        "max_gap": point.values["max_gap"] if point else None,
        "sentence": choice.sentence,
    }


def accuracies_title(evidence: Evidence) -> str:
    """The column of accuracies where a gap is largest: `female/male`, or of many sides the ends."""
    pairs = {tuple(point.accuracies) for point in evidence.values() if point.accuracies}
    (sides,) = pairs if len(pairs) == 1 else [()]
    return "/".join(sides) if len(sides) == 2 else ENDS


def _accuracies(point_evidence: PointEvidence, title: str) -> str:
    """The accuracy of both sides where the gap is largest; of more the lowest and the highest."""
    rates = point_evidence.accuracies
    if not rates:
        return "-"
    if title != ENDS:
        return "/".join(map(_points, rates.values()))
    ends = (min(rates, key=rates.get), max(rates, key=rates.get))
    return " / ".join(f"{_points(rates[side])} {side}" for side in ends)


def _evidence_columns(info: FrontInfo, point_evidence: PointEvidence) -> dict[str, str]:
    """A row's columns on how sure its gap is, in points."""
    columns = {
        "at most": _points(point_evidence.gap.at_most),
        "fair models": _points(point_evidence.band.high),
        "against ERM": _interval((point_evidence.change or {}).get("max_gap")),
    }
    if info.cell:
        columns[in_cell_title(info)] = _interval(point_evidence.in_cell)
    return columns


def in_cell_title(info: FrontInfo) -> str:
    """The column of the change of the gap in the cell that was named before the sweep."""
    return f"{info.cell} against ERM"


def _interval(change: PairedDifference | None) -> str:
    """A change in points with its bounds, `-` without."""
    interval = [change.value, change.low, change.high] if change else [np.nan]
    if not np.isfinite(interval).all():
        return "-"
    return "{} [{}, {}]".format(*(_points(value, sign="+") for value in interval))


def _points(value: float, *, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}" if np.isfinite(value) else "-"


def _cell(name: str, point: Point, errors: Mapping) -> str:
    metric, value = METRICS[name], point.values[name]
    error = errors.get(point.trial_id, {}).get(f"{name}_se")
    if not np.isfinite(value):
        return "undefined"
    shown = metric.text(value)
    return shown if error is None or not np.isfinite(error) else f"{shown} ± {metric.text(error)}"


def _setting(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> object:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def to_latex(shown: pd.DataFrame) -> str:
    """A table of `display` for booktabs."""
    lines = [" & ".join(map(latex, row)) + r" \\" for row in shown.astype(str).to_numpy()]
    head = " & ".join(map(latex, shown.columns)) + r" \\"
    columns = "l" * min(2, shown.shape[1]) + "r" * max(shown.shape[1] - 2, 0)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *lines,
         r"\bottomrule", r"\end{tabular}", ""]
    )  # fmt: skip
