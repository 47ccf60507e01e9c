"""What is left of a front over seeds and on test: table, sentences and picture of DIR/confirm.

    confirmed.write("results/small")

Writes confirm.csv and confirm.png beside the sweep's other pictures. Intervals are 95 % t-intervals
over seeds alone: the speakers of dev and of test are the same for every seed, and what they differ
in is not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis import front, layout
from analysis.figures import BLUE, GREY, INK, ORANGE, SOFT
from ermgap.errors import UserError
from ermgap.records import Records, write_atomically

FILE = "confirmed.parquet"
PLOTS = Path("analysis/plots")
SHOWN = ("acc", "w_f1", "max_gap", "worst_group_w_f1")


def write(directory: Path | str, plots: Path | str = PLOTS, *, quiet: bool = False) -> pd.DataFrame:
    """Write the table and the picture, print them, and return the table (fractions)."""
    records = Records.open(directory)
    path = records.directory / "confirm" / FILE
    if not path.exists():
        raise UserError(f"{directory} is not confirmed yet; run it with --confirm SEEDS.")
    info = front.info(records)
    made = table(info, pd.read_parquet(path))
    folder = Path(plots) / records.directory.resolve().name
    write_atomically(folder / "confirm.csv", lambda p: made.to_csv(p, index=False))
    write_atomically(folder / "confirm.png", lambda p: draw(info, made, p))
    if not quiet:
        print(to_text(made))
        print("\n".join(sentences(made)))
        print(f"written: {folder}/confirm.png, confirm.csv")
    return made


def table(info: front.FrontInfo, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a configuration, in the front's order, ERM last where it is not on the front.

    Columns: trial_id, loss, on_front, seeds (that ended), degenerate (of them), and for each metric
    its value in the search (`acc`), its mean over seeds on dev and test (`acc_dev`, `acc_test`) and
    the half-widths of their intervals (`acc_dev_half` ...); NaN under two seeds.
    """
    rows = []
    for trial_id, mine in runs.groupby("trial_id", sort=False):
        point = info.find(trial_id)
        row = {"trial_id": trial_id, "loss": point.config.get("loss"), "on_front": point.on_front}
        dev = mine[mine["split"] == "dev"]
        row |= {"seeds": int((dev["status"] != "failed").sum())}
        row |= {"degenerate": int((dev["status"] == "degenerate").sum())}
        for name in SHOWN:
            row[name] = point.values[name]
            for split in ("dev", "test"):
                values = mine.loc[mine["split"] == split, name].dropna().to_numpy()
                row[f"{name}_{split}"], row[f"{name}_{split}_half"] = interval(values)
        rows.append(row)
    made = pd.DataFrame(rows)
    return made.sort_values(["on_front", "acc"], ascending=False, ignore_index=True)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval by Student's t; NaN where there are too few."""
    if len(values) < 2:
        return (float(values.mean()) if len(values) else float("nan")), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def to_text(made: pd.DataFrame) -> str:
    """For a terminal: percent and points."""
    rows = []
    for _, one in made.iterrows():
        row = {"trial": one["trial_id"], "loss": one["loss"], "seeds": one["seeds"]}
        for name in ("acc", "max_gap"):
            row[f"{name} search"] = f"{100 * one[name]:.1f}"
            for split in ("dev", "test"):
                row[f"{name} {split}"] = _cell(one[f"{name}_{split}"], one[f"{name}_{split}_half"])
        rows.append(row)
    return pd.DataFrame(rows).to_string(index=False)


def sentences(made: pd.DataFrame) -> list[str]:
    """How much of the search's values was luck, and whether their order is left."""
    said = []
    picked = made[made["on_front"]]
    for name, word, sign in (("acc", "accuracy", 1), ("max_gap", "gap", -1)):
        for split in ("dev", "test"):
            lost = (sign * (picked[name] - picked[f"{name}_{split}"])).mean()
            if np.isfinite(lost):
                way = "worse" if lost > 0 else "better"
                said.append(
                    f"Over fresh seeds the front's {word} on {split} is {100 * abs(lost):.1f} "
                    f"points {way} than the search saw."
                )
    if len(made) >= 4:
        for name, word in (("acc", "accuracy"), ("max_gap", "gap")):
            rank = stats.spearmanr(made[name], made[f"{name}_dev"]).statistic
            if np.isfinite(rank):
                said.append(
                    f"The order of the configurations by {word} in the search and over fresh "
                    f"seeds agrees by {rank:.2f} (rank correlation of {len(made)}, dev)."
                )
    poor = made.loc[made["degenerate"] > 0, "trial_id"]
    if len(poor):
        said.append(f"Near a constant predictor with some seeds: {', '.join(poor)}.")
    said.append(
        "Intervals are 95 % t-intervals over seeds alone; the speakers are the same for all seeds."
    )
    return said


def draw(info: front.FrontInfo, made: pd.DataFrame, path: Path) -> None:
    """Search, dev and test of each configuration in the plane of accuracy and gap, a panel each."""
    from matplotlib.figure import Figure

    x, y = (name if name in SHOWN else other for name, other in
            zip(info.objectives[:2], ("acc", "max_gap"), strict=True))  # fmt: skip
    splits = [s for s in ("dev", "test") if np.isfinite(made[f"{x}_{s}"]).any()]
    figure = Figure(figsize=(5.2 * len(splits) + 0.4, 4.8), layout="constrained")
    panels = figure.subplots(1, len(splits), sharex=True, sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        for _, one in made.iterrows():
            _one(axes, one, x, y, split)
        axes.set_title(f"{split}, fresh seeds", loc="left", fontsize=10.5, color=INK)
        axes.set_xlabel(_label(x), color=INK)
        axes.grid(color="#EEEEEE", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(0.12)
    panels[0].set_ylabel(_label(y), color=INK)
    figure.suptitle(
        "The front over fresh seeds: hollow what the search saw, filled the mean, 95 % bars over "
        "seeds", fontsize=9.5, color=SOFT, x=0.01, ha="left",
    )  # fmt: skip
    figure.savefig(path, dpi=150, format="png")


def _one(axes, one: Mapping, x: str, y: str, split: str) -> None:
    color = ORANGE if one["loss"] == "erm" else BLUE
    start, end = (
        (100 * one[x], 100 * one[y]),
        (100 * one[f"{x}_{split}"], 100 * one[f"{y}_{split}"]),
    )
    if not np.isfinite(end).all():
        return
    axes.plot(*zip(start, end, strict=True), color=GREY, linewidth=0.8, alpha=0.7, zorder=2)
    axes.plot(*start, "o", markerfacecolor="none", markeredgecolor=color, markersize=6, zorder=3)
    half = [100 * np.nan_to_num(one[f"{name}_{split}_half"]) for name in (x, y)]
    axes.errorbar(
        *end, xerr=half[0], yerr=half[1], fmt="D" if one["loss"] == "erm" else "o", color=color,
        ecolor=color, elinewidth=1, alpha=0.85, markersize=6, zorder=4,
    )  # fmt: skip
    axes.annotate(
        one["trial_id"], end, xytext=(6, 5), textcoords="offset points", fontsize=8, color=INK
    )


def _label(name: str) -> str:
    word, factor, *_ = layout.AXES[name]
    return word


def _cell(mean: float, half: float) -> str:
    if not np.isfinite(mean):
        return "-"
    return f"{100 * mean:.1f}" + (f" ± {100 * half:.1f}" if np.isfinite(half) else "")
