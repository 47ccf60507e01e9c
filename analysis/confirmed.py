"""A front over fresh seeds and on test: table, sentences and pictures of DIR/confirm.

    confirmed.write("results/small")

Writes confirm.csv, confirm.png and confirm-front.png beside the sweep's other pictures. Intervals
are 95 % t-intervals over seeds alone: the speakers of dev and of test are the same for every seed,
and what they differ in is not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis.figures import figures, layout
from analysis.figures.figures import BLUE, INK, ORANGE, SOFT
from analysis.front import front
from analysis.tables.tables import PLOTS
from ermgap.config import METRICS
from ermgap.errors import UserError
from ermgap.records import Records, file_names, write_atomically


def write(directory: Path | str, plots: Path | str = PLOTS) -> pd.DataFrame:
    """Write the table and the picture, print them, and return the table (fractions)."""
    records = Records.open(directory)
    path = records.directory / file_names.CONFIRM / file_names.CONFIRMED
    if not path.exists():
        raise UserError(f"{directory} is not confirmed yet; run it with --confirm SEEDS.")
    info = front.info(records)
    rows = table(info, pd.read_parquet(path))
    folder = Path(plots) / records.directory.resolve().name
    pictures(info, rows, folder)
    print(to_text(rows))
    print("\n".join(sentences(rows)))
    print(f"written: {folder}/confirm.png, confirm-front.png, confirm.csv")
    return rows


def runs(records: Records) -> pd.DataFrame | None:
    """A row per configuration, seed and split of a sweep that was confirmed.

    None of another sweep, or if the file cannot be read or is of something else.
    """
    path = records.directory / file_names.CONFIRM / file_names.CONFIRMED
    try:
        rows = pd.read_parquet(path) if path.exists() else None
    except (OSError, ValueError):
        return None
    needed = {"trial_id", "seed", "split", "status", *METRICS}
    return rows if rows is not None and needed <= set(rows) else None


def read(info: front.FrontInfo, records: Records) -> pd.DataFrame | None:
    """`table` of a sweep that was confirmed; None of another, or of other trials."""
    rows = runs(records)
    if rows is None or any(info.find(trial_id) is None for trial_id in rows["trial_id"]):
        return None
    return table(info, rows)


def pictures(info: front.FrontInfo, table: pd.DataFrame, folder: Path) -> None:
    """Write confirm.csv, confirm.png and confirm-front.png."""
    write_atomically(folder / "confirm.csv", lambda p: table.to_csv(p, index=False))
    write_atomically(folder / "confirm.png", lambda p: draw(info, table, p))
    write_atomically(folder / "confirm-front.png", lambda p: draw_front(info, table, p))


def on_test(table: pd.DataFrame | None, trial_id: str | None) -> str:
    """What is known of a configuration on test, as the end of a sentence; empty if nothing."""
    mine = table[table["trial_id"] == trial_id] if table is not None else ()
    if not len(mine) or not np.isfinite(mine["acc_test"].iloc[0]):
        return ""
    row = mine.iloc[0]
    return (
        f" On test, over {row['seeds']} fresh seeds: accuracy "
        f"{_cell(row['acc_test'], row['acc_test_half'])} %, gap "
        f"{_cell(row['max_gap_test'], row['max_gap_test_half'])} points."
    )


def table(info: front.FrontInfo, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a configuration, in the front's order, ERM last where it is not on the front.

    Columns: trial_id, loss, on_front, seeds (that ended), degenerate (of them), and for each metric
    its value in the search (`acc`), its mean over seeds on dev and test (`acc_dev`, `acc_test`) and
    the half-widths of their intervals (`acc_dev_half` ...); NaN under two seeds.
    """
    rows = []
    for trial_id, mine in runs.groupby("trial_id", sort=False):
        point = info.find(trial_id)
        row = {
            "trial_id": trial_id,
            "loss": point.hyperparameters.get("loss"),
            "on_front": point.on_front,
        }
        dev = mine[mine["split"] == "dev"]
        row |= {"seeds": int((dev["status"] != "failed").sum())}
        row |= {"degenerate": int((dev["status"] == "degenerate").sum())}
        for name in METRICS:
            row[name] = point.values[name]
            for split in ("dev", "test"):
                values = mine.loc[mine["split"] == split, name].dropna().to_numpy()
                row[f"{name}_{split}"], row[f"{name}_{split}_half"] = interval(values)
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values(["on_front", "acc"], ascending=False, ignore_index=True)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval by Student's t; NaN where there are too few."""
    if len(values) < 2:
        return (float(values.mean()) if len(values) else float("nan")), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def to_text(table: pd.DataFrame) -> str:
    """The table as text for a terminal, in percent and points."""
    rows = []
    for _, values in table.iterrows():
        row = {"trial": values["trial_id"], "loss": values["loss"], "seeds": values["seeds"]}
        for name in ("acc", "max_gap"):
            row[f"{name} search"] = f"{100 * values[name]:.1f}"
            for split in ("dev", "test"):
                column = f"{name}_{split}"
                row[f"{name} {split}"] = _cell(values[column], values[f"{column}_half"])
        rows.append(row)
    return pd.DataFrame(rows).to_string(index=False)


def sentences(table: pd.DataFrame) -> list[str]:
    """How much of the search's values was luck, and whether their order stays."""
    lines = []
    picked = table[table["on_front"]]
    for name, sign in (("acc", 1), ("max_gap", -1)):
        title = METRICS[name].short
        for split in ("dev", "test"):
            lost = (sign * (picked[name] - picked[f"{name}_{split}"])).mean()
            if np.isfinite(lost):
                way = "worse" if lost > 0 else "better"
                lines.append(
                    f"Over fresh seeds the front's {title} on {split} is {100 * abs(lost):.1f} "
                    f"points {way} than the search saw."
                )
    if len(table) >= 4:
        for name in ("acc", "max_gap"):
            rank = stats.spearmanr(table[name], table[f"{name}_dev"]).statistic
            if np.isfinite(rank):
                lines.append(
                    f"The order of the configurations by {METRICS[name].short} in the search "
                    f"and over fresh seeds agrees by {rank:.2f} "
                    f"(rank correlation of {len(table)}, dev)."
                )
    poor = table.loc[table["degenerate"] > 0, "trial_id"]
    if len(poor):
        lines.append(f"Near a constant predictor with some seeds: {', '.join(poor)}.")
    lines.append(
        "Intervals are 95 % t-intervals over seeds alone; the speakers are the same for all seeds."
    )
    return lines


def draw(info: front.FrontInfo, table: pd.DataFrame, path: Path) -> None:
    """A row a configuration, axes an objective: the search's values, dev and test over seeds."""
    from matplotlib.figure import Figure

    names = info.objectives
    figure = Figure(figsize=(4.6 * len(names) + 0.6, 0.55 * len(table) + 1.7), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    place = np.arange(len(table))[::-1]
    for axes, name in zip(panels, names, strict=True):
        metric = METRICS[name]
        for mark, shift, color, title in MARKS:
            column = name if mark == "search" else f"{name}_{mark}"
            half = metric.scale * table.get(f"{column}_half", pd.Series(0.0, table.index))
            filled = {} if mark != "search" else {"markerfacecolor": "white"}
            axes.errorbar(
                metric.scale * table[column], place + shift, xerr=half.fillna(0), fmt="o",
                color=color, markersize=6, elinewidth=1.4, label=title, **filled,
            )  # fmt: skip
        axes.set_xlabel(f"{metric.label}\n{metric.better}", color=INK)
        axes.set_yticks(place, [_name(row) for _, row in table.iterrows()])
        axes.grid(axis="y", color="#EEEEEE")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150, format="png")


def draw_front(info: front.FrontInfo, table: pd.DataFrame, path: Path) -> None:
    """The plane of the front: arrows from what the search saw to the mean on test (else on dev)."""
    x, y = names = layout.plane(info)
    split = "test" if np.isfinite(table[f"{y}_test"]).any() else "dev"
    factor = np.array([METRICS[name].scale for name in names])
    searched = table[[x, y]].to_numpy(float) * factor
    fresh = table[[f"{x}_{split}", f"{y}_{split}"]].to_numpy(float) * factor
    there = np.isfinite(searched).all(1) & np.isfinite(fresh).all(1)
    ends = np.concatenate([searched[there], fresh[there]])
    caption = (
        f"Hollow: what the search saw on dev, one seed. Filled: mean on {split} over fresh seeds.",
        "The search's values are the best of many, and so too good; test was touched here alone.",
    )
    title = f"From the search to {split}"
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
    figure.savefig(path, dpi=150, format="png")


MARKS = (  # column, its place in the row, colour, title
    ("search", 0.22, SOFT, "in the search"),
    ("dev", 0.0, BLUE, "dev, fresh seeds, 95 %"),
    ("test", -0.22, ORANGE, "test, fresh seeds, 95 %"),
)


def _name(row: Mapping) -> str:
    return f"{row['trial_id']} (ERM)" if row["loss"] == "erm" else row["trial_id"]


def _cell(mean: float, half: float) -> str:
    if not np.isfinite(mean):
        return "-"
    return f"{100 * mean:.1f}" + (f" ± {100 * half:.1f}" if np.isfinite(half) else "")
