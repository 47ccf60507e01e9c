"""What a benchmark table shows, in which order and what is bold; and the notes below it.

    made = benchmark_table.table(systems, labels=labels, baseline="ERM")
    for grid in grids(made): print(grid.title, grid.header, grid.rows, grid.bold)
    for note in notes(made): print(note)

Scores are percent and gaps percentage points with one decimal. `formats` spells both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.tables.benchmark_table import COMPARED, OVERALL, SCORES, BenchmarkTable
from ermgap.config import CHANCE_GAP, GAP_TITLES

TITLES = {name: GAP_TITLES[name] for name in ("w_f1", "acc")} | {
    f"{name}_gap": f"{title} gap" for name, title in (GAP_TITLES | {"max": "max"}).items()
}
TITLES |= {f"delta_{name}": TITLES[name] for name in COMPARED}
WITH_ERROR = ("w_f1", "acc", "avg_gap", "max_gap")


@dataclass(frozen=True)
class Grid:
    """Rows of text under a title; `bold` holds (row, column) of the best values."""

    title: str
    header: list[str]
    rows: list[list[str]]
    bold: frozenset[tuple[int, int]]


def grids(table: BenchmarkTable) -> list[Grid]:
    """One grid a block, then the largest gaps, then the differences to the baseline."""
    many, unparsable = len(table.systems) > 1, bool(table.rows["unparsable"].any())
    made = []
    for block, part in table.rows.groupby("block", sort=False):
        counts = part[[f"n_{side}" for side in table.sides]].to_numpy()
        more = {"n": ["/".join(f"{n:,}" for n in row) for row in counts]}
        if unparsable:
            more["no label"] = [f"{n:,}" for n in part["unparsable"]]
        made.append(_grid(block.replace("/", ", ", 1), part, SCORES, more, with_best=many))
    more = {"worst cell": table.systems["worst_cell"].fillna("–").tolist()}
    title = "Largest AVG gap over cells"
    made.append(_grid(title, table.systems, ["max_gap"], more, with_best=many))
    if many and table.baseline is not None:
        others = table.rows[table.rows["system"] != table.baseline]
        keys = [f"delta_{key}" for key in COMPARED]
        for block, part in others[others["language"] == OVERALL].groupby("block", sort=False):
            title = f"Difference to {table.baseline}, {block.replace('/', ', ', 1)}"
            made.append(_grid(title, part, keys, {}, with_best=False))
    return made


def notes(table: BenchmarkTable) -> list[str]:
    """What a reader must know beside the numbers, one sentence or two each."""
    facts, rows = table.facts, table.rows
    splits = ", ".join(facts["splits"]) or "not stated"
    lines = [
        f"Split: {splits}. n counts utterances ({'/'.join(table.sides)}). Scores are percent, gaps "
        f"percentage points by {facts['attribute']}, between the highest and the lowest side; TPR "
        f"and FPR gaps are means over classes with at least {facts['min_support']} utterance(s) of "
        "a side, AVG is the mean of the four gaps; overall pools the utterances of a modality.",
        f"± is one standard error over speakers resampled within language and {facts['attribute']},"
        " no 95 % interval; a largest gap is biased upward.",
        f"Gaps of few speakers or utterances are mostly noise: {CHANCE_GAP}. Here a language and "
        f"side has {facts['speakers']} speaker(s) at the least.",
    ]
    if facts["speakers"] == 1:
        lines.append("With one speaker, ± misses what differs between speakers and is too short.")
    if facts["folds"] > 1:
        lines.append(
            f"Out-of-fold predictions of {facts['folds']} folds are pooled; each fold's last epoch "
            "counts, so that none is chosen on what is reported."
        )
    elif "dev" in facts["splits"]:
        lines.append("Epochs are chosen on dev, so values on dev look better than on test.")
    uncounted = facts["uncounted"]
    for numbers in dict.fromkeys(tuple(cells.items()) for cells in uncounted.values() if cells):
        who = [name for name, cells in uncounted.items() if tuple(cells.items()) == numbers]
        of = "" if len(who) == len(uncounted) else f" of {', '.join(who)}"
        lines.append(
            f"The max gap{of} is without {'; '.join(f'{cell} ({n})' for cell, n in numbers)}: a "
            f"cell counts with {facts['cell_support']} utterances of two sides and as many "
            "defined gaps as the others."
        )
    if facts["synthetic"]:
        names = ", ".join(facts["synthetic"])
        lines.append(f"Synthetic speech, not human: {names}; no claim on people follows from it.")
    if (rows.groupby("block")["n"].nunique() > 1).any():
        lines.append(
            "Systems with fewer utterances than others in a block (see n) are never bold there."
        )
    if rows["unparsable"].any():
        lines.append("no label: answers that are none of the labels; they count as wrong.")
    if rows["degenerate"].any():
        half = f", or W-F1 under half of {table.baseline}'s" if table.baseline else ""
        lines.append(
            "† Accuracy not above always giving the commonest label, there or in the whole "
            f"modality{half}: a constant predictor has a gap of 0, so such gaps are never bold."
        )
    return lines + undefined(table)


def undefined(table: BenchmarkTable) -> list[str]:
    """Why a value is undefined (an en dash), one sentence a reason."""
    reasons = pd.DataFrame(
        [(r.block, r.system, why) for _, r in table.rows.iterrows() for why in _reasons(r, table)],
        columns=["block", "system", "why"],
    )
    systems = reasons.groupby(["why", "block"], sort=False)["system"].agg(", ".join).reset_index()
    blocks = systems.groupby(["why", "system"], sort=False)["block"].agg(", ".join)
    return [f"– {names} in {where}: {why}." for (why, names), where in blocks.items()]


def _reasons(row, table: BenchmarkTable) -> list[str]:
    if row.n == 0:
        return ["no prediction"]
    there = [side for side in table.sides if row[f"n_{side}"] > 0]
    reasons = []
    if len(there) < 2:
        reasons.append(f"only {there[0] if there else 'unknown'} utterances, so no gap is defined")
    elif row.classes == 0:
        least = table.facts["min_support"]
        reasons.append(f"no class has {least} utterance(s) of two sides: no TPR or FPR gap")
    elif not np.isfinite(row.fpr_gap):
        reasons.append("all utterances of a side have one label: no FPR gap")
    if table.baseline and row.language == OVERALL and np.isnan(row.delta_acc):
        reasons.append(f"other utterances than those of {table.baseline}: no difference to it")
    return reasons


# What is shown ------------------------------------------------------------------------------------


def _grid(
    title: str,
    part: pd.DataFrame,
    keys: Sequence[str],
    more: Mapping[str, Sequence[str]],
    *,
    with_best: bool,
) -> Grid:
    """A row a system: the scores `keys`, then the columns of text `more`, by their headings."""
    names = part["system"] + np.where(part["degenerate"], "†", "")
    rows = zip(names, *(_column(part, key) for key in keys), *more.values(), strict=True)
    header = ["System", *(TITLES[key] for key in keys), *more]
    bold = _best(part, keys) if with_best else frozenset()
    return Grid(title, header, [list(row) for row in rows], bold)


def _column(part: pd.DataFrame, key: str) -> list[str]:
    sign = "+" if key.startswith("delta_") else ""
    errors = part[f"{key}_se"] if key in WITH_ERROR or sign else [np.nan] * len(part)
    return [_shown(value, error, sign) for value, error in zip(part[key], errors, strict=True)]


def _shown(value: float, error: float, sign: str) -> str:
    if not np.isfinite(value):
        return "–"
    text = f"{100 * value + 0.0:{sign}.1f}".replace("-", "\u2212")
    text = re.sub("^[\u2212+](0\\.0)$", r"\1", text)  # a change of 0.0 has no sign
    return f"{text} ± {100 * error:.1f}" if np.isfinite(error) else text


def _best(part: pd.DataFrame, keys: Sequence[str]) -> frozenset[tuple[int, int]]:
    """Places of the best value of each column, ties included: of no degenerate system, and of none
    that was scored on fewer utterances or cells than another."""
    fair = ~part["degenerate"] & (part["n"] == part["n"].max())
    places = set()
    for column, key in enumerate(keys, 1):
        values = part[key].where(fair).to_numpy(float)
        if np.isfinite(values).any():
            best = np.nanmax(values) if not key.endswith("_gap") else np.nanmin(values)
            places |= {(int(i), column) for i in np.flatnonzero(np.abs(values - best) < 1e-12)}
    return frozenset(places)
