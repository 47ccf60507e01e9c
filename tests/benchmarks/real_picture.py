"""The picture of systems over speaker folds: paired differences to ERM with their intervals.

save(rows, systems, folds=5, path=Path("analysis/gallery/real.png"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from real_table import (
    BASELINE,
    COLUMNS,
    RESAMPLES,
    Paired,
    largest_gap_difference,
    seeds_of,
    sums_of,
    values,
)

from analysis.figures import figures
from analysis.figures.figures import BLUE, INK, ORANGE, SOFT

PANELS = {  # column of the table -> title, and which way is better
    "acc": ("Accuracy", "higher is better"),
    "worst_group": ("Worst group's W-F1", "higher is better"),
    "max_gap": ("Largest gap by gender", "lower is better"),
}
PAPER = "the paper: both sides, batch, p 2, adaptive"
ORDER = ("the paper", "both sides", "worse side")  # from the top, before the rivals
RIVALS = ("GroupDRO", "Reweighting", "V-REx")


def save(rows: Sequence[Mapping], systems: Sequence[str], *, folds: int, path: Path) -> None:
    """Draw a row for each system that has a whole seed: points less ERM's, 95 % intervals."""
    from matplotlib.figure import Figure

    sums = sums_of(rows, folds=folds)
    weights = sums.draws(RESAMPLES, np.random.default_rng(0))
    shown = [name for name in systems if name != BASELINE and seeds_of(sums, name)]
    shown.sort(key=lambda name: [not name.startswith(start) for start in ORDER])
    base = values(sums, sums.measured_weights, [(BASELINE, s) for s in seeds_of(sums, BASELINE)])[0]
    changes = {name: _changes(sums, name, weights) for name in shown}
    figure = Figure(figsize=(11, 0.36 * len(shown) + 1.9), layout="constrained")
    place = np.arange(len(shown))[::-1]
    for axes, (column, (title, better)) in zip(
        figure.subplots(1, len(PANELS), sharey=True), PANELS.items(), strict=True
    ):
        axes.axvline(0, color=ORANGE, linewidth=1.2)
        for at, name in zip(place, shown, strict=True):
            value, low, high = (100 * end for end in changes[name][column])
            color = SOFT if name.startswith(RIVALS) else BLUE
            axes.errorbar(
                value, at, xerr=[[value - low], [high - value]], fmt="o", color=color,
                markersize=6, elinewidth=1.6,
            )  # fmt: skip
        erm = 100 * base[list(COLUMNS).index(column)]
        axes.set_title(f"{title}\nERM {erm:.1f} %" if column != "max_gap" else
                       f"{title}\nERM {erm:.1f} points", fontsize=11, color=INK)  # fmt: skip
        axes.set_xlabel(f"points less ERM's; {better}", color=INK)
        axes.set_yticks(place, [_title(name) for name in shown])
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.grid(axis="x", color="#EEEEEE")
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figures.save(figure, path)


def _changes(sums, name: str, weights: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """Difference, low and high of each panel's column, fractions."""
    plain, gap = Paired(sums, name, weights), largest_gap_difference(sums, name, weights)
    ends = {
        column: (value, value - half, value + half)
        for column, value, half in zip(COLUMNS, plain.difference, plain.half, strict=True)
    }
    return ends | {"max_gap": (gap.value, gap.low, gap.high)}


def _title(name: str) -> str:
    """The name of a row; what all MinMaxGAP systems of the worse side share is left to the text."""
    if name == PAPER:
        return "the paper's: both sides, adaptive"
    return name.replace(", ema, p 1,", ",").replace(", batch, p 2,", ", squared,")
