"""The pictures of a confirmed front: a row a configuration, and arrows in the plane of the front.

    save(over_seeds(info, table), folder / "confirm.png")        # table: of analysis.confirmed

Both return matplotlib figures. `search` is what the search saw, `dev` and `test` are over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.figures import figures, layout
from analysis.figures.figures import BLUE, INK, ORANGE, SOFT
from analysis.front import FrontInfo
from ermgap.config import METRICS

MARKS = (("search", 0.22, SOFT), ("dev", 0.0, BLUE), ("test", -0.22, ORANGE))  # its place in a row


def over_seeds(info: FrontInfo, table: pd.DataFrame):
    """A row a configuration, axes an objective: the search's values, dev and test over seeds.

    A cross-fitted table has a second row of axes: paired differences to ERM over the speakers.
    """
    from matplotlib.figure import Figure

    names = info.objectives
    changed = [name for name in names if f"{name}_change" in table]
    height = 0.55 * len(table) + 1.7
    figure = Figure(
        figsize=(4.6 * len(names) + 0.6, height * (2 if changed else 1)), layout="constrained"
    )
    panels = figure.subplots(2 if changed else 1, len(names), sharey=True, squeeze=False)
    place = np.arange(len(table))[::-1]
    titles = _titles(table)
    for axes, name in zip(panels[0], names, strict=True):
        metric = info.attribute.metric(name)
        for mark, shift, color in MARKS:
            column = name if mark == "search" else f"{name}_{mark}"
            if table[column].isna().all():  # no test utterances
                continue
            half = metric.scale * table.get(f"{column}_half", pd.Series(0.0, table.index))
            filled = {} if mark != "search" else {"markerfacecolor": "white"}
            axes.errorbar(
                metric.scale * table[column], place + shift, xerr=half.fillna(0), fmt="o",
                color=color, markersize=6, elinewidth=1.4, label=titles[mark], **filled,
            )  # fmt: skip
        axes.set_xlabel(f"{metric.label}\n{metric.better}", color=INK)
    for number, name in enumerate(names if changed else ()):
        if name in changed:
            _differences(panels[1, number], name, table, place)
        else:
            panels[1, number].set_visible(False)
    for axes in panels.flat:
        axes.set_yticks(place, [_name(row) for _, row in table.iterrows()])
        axes.grid(axis="y", color="#EEEEEE")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def front(info: FrontInfo, table: pd.DataFrame):
    """The plane of the front: arrows from what the search saw to the means over seeds.

    These are of all speakers if cross-fitted, else on test if there is one, else on dev.
    """
    x, y = names = layout.plane(info)
    crossed = "folds" in table
    split = "test" if np.isfinite(table[f"{y}_test"]).any() and not crossed else "dev"
    factor = np.array([METRICS[name].scale for name in names])
    searched = table[[x, y]].to_numpy(float) * factor
    fresh = table[[f"{x}_{split}", f"{y}_{split}"]].to_numpy(float) * factor
    there = np.isfinite(searched).all(1) & np.isfinite(fresh).all(1)
    ends = np.concatenate([searched[there], fresh[there]])
    title, caption = _front_texts(table, split)
    picture = layout.frame(info, ends, ends, title=title, caption=caption)
    figure, axes = figures.framed(picture)
    for erm, color, marker, label in ((False, BLUE, "o", "front"), (True, ORANGE, "D", "ERM")):
        mine = there & (table["loss"].eq("erm").to_numpy() == erm)
        if not mine.any():
            continue
        for start, end in zip(searched[mine], fresh[mine], strict=True):
            line = {"arrowstyle": "-|>", "color": color, "alpha": 0.45, "shrinkA": 5, "shrinkB": 5}
            axes.annotate("", xytext=start, xy=end, arrowprops=line)
        axes.scatter(*searched[mine].T, s=46, marker=marker, facecolors="white", edgecolors=color)
        axes.scatter(*fresh[mine].T, s=52, marker=marker, color=color, edgecolors="white",
                     label=label, zorder=4)  # fmt: skip
    figures.legend(axes)
    return figure


def _differences(axes, name: str, table: pd.DataFrame, place: np.ndarray) -> None:
    """Each configuration's difference to ERM with its interval over the speakers."""
    scale = METRICS[name].scale
    value, low, high = (
        scale * table[f"{name}_change{end}"].to_numpy(float) for end in ("", "_low", "_high")
    )
    axes.axvline(0, color=ORANGE, linewidth=1, alpha=0.6)
    bars = np.nan_to_num([value - low, high - value])
    axes.errorbar(value, place, xerr=bars, fmt="o", color=BLUE, markersize=6, elinewidth=1.4)
    judges = f"the same {table['speakers'].iloc[0]} speakers, 95 % over them"
    axes.set_xlabel(f"{METRICS[name].short} less ERM's, points\n{judges}", color=INK)


def _titles(table: pd.DataFrame) -> dict[str, str]:
    titles = {"search": "in the search", "test": "test, fresh seeds, 95 %"}
    if "folds" not in table:
        return titles | {"dev": "dev, fresh seeds, 95 %"}
    speakers, folds = table[["speakers", "folds"]].iloc[0]
    return titles | {"dev": f"{speakers} speakers, cross-fitted over {folds} folds, fresh seeds"}


def _front_texts(table: pd.DataFrame, split: str) -> tuple[str, tuple[str, str]]:
    """Title and caption of the arrows."""
    best = "The search's values are the best of many, and so too good"
    if "folds" not in table:
        seen = f"Hollow: what the search saw on dev, one seed. Filled: mean on {split} over "
        return f"From the search to {split}", (
            f"{seen}fresh seeds.", f"{best}; test was touched here alone.",
        )  # fmt: skip
    speakers, folds = table[["speakers", "folds"]].iloc[0]
    return "From the search to every speaker", (
        "Hollow: what the search saw on dev, one seed. Filled: mean over fresh seeds, cross-fitted "
        f"over {folds} folds:",
        f"each of {speakers} speakers is judged by models that never heard them. {best}.",
    )


def _name(row: Mapping) -> str:
    return f"{row['trial_id']} (ERM)" if row["loss"] == "erm" else row["trial_id"]
