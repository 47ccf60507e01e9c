"""A front over fresh seeds and on test: table, sentences and pictures of DIR/confirm.

    confirmed.write("results/small")

Writes confirm.csv, confirm.png and confirm-front.png beside the sweep's other pictures. Intervals
are 95 % t-intervals over seeds alone: the speakers of dev and of test are the same for every seed,
and what they differ in is not in them. Where the front was confirmed on speaker folds as well
(DIR/confirm-folds), that is shown instead: `dev` is then every speaker of train and dev, and the
differences to ERM have intervals over these speakers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from analysis.figures import confirm_picture
from analysis.figures.figures import save
from analysis.front import front
from analysis.statistics import cross_fitted, dial
from analysis.statistics.paired import PairedDifference
from analysis.tables.tables import PLOTS
from ermgap.config import METRICS
from ermgap.errors import UserError
from ermgap.records import Records, file_names, write_atomically

COMPARED = ("acc", "w_f1", "max_gap")  # with ERM, where cross-fitted
ENDS = ("", "_low", "_high")  # of the columns of a difference


def write(directory: Path | str, plots: Path | str = PLOTS) -> pd.DataFrame:
    """Write the table and the picture, print them, and return the table (fractions)."""
    records = Records.open(directory)
    made = runs(records)
    if made is None:
        raise UserError(f"{directory} is not confirmed yet; run it with --confirm SEEDS.")
    info = dial.read(front.info(records), records).info
    rows = table(info, made, records)
    folder = Path(plots) / records.directory.resolve().name
    pictures(info, rows, folder)
    print(to_text(rows))
    print("\n".join(sentences(rows)))
    print(f"written: {folder}/confirm.png, confirm-front.png, confirm.csv")
    return rows


def runs(records: Records) -> pd.DataFrame | None:
    """A row per configuration, seed and split of a sweep that was confirmed, on folds if it was.

    None of another sweep, or if the file cannot be read or is of something else.
    """
    needed = {"trial_id", "seed", "split", "status", *METRICS}
    for name in (file_names.CROSS_FITTED, f"{file_names.CONFIRM}/{file_names.CONFIRMED}"):
        path = records.directory / name
        try:
            rows = pd.read_parquet(path) if path.exists() else None
        except (OSError, ValueError):
            continue
        if rows is not None and needed <= set(rows):
            return rows
    return None


def read(info: front.FrontInfo, records: Records) -> pd.DataFrame | None:
    """`table` of a sweep that was confirmed; None of another, or of other trials."""
    rows = runs(records)
    if rows is None or any(info.find(trial_id) is None for trial_id in rows["trial_id"]):
        return None
    return table(info, rows, records)


def pictures(info: front.FrontInfo, table: pd.DataFrame, folder: Path) -> None:
    """Write confirm.csv, confirm.png and confirm-front.png."""
    write_atomically(folder / "confirm.csv", lambda p: table.to_csv(p, index=False))
    save(confirm_picture.over_seeds(info, table), folder / "confirm.png")
    save(confirm_picture.front(info, table), folder / "confirm-front.png")


def on_test(table: pd.DataFrame | None, trial_id: str | None) -> str:
    """What is known of a configuration on test or cross-fitted: ends of sentences, or nothing."""
    mine = table[table["trial_id"] == trial_id] if table is not None else ()
    if not len(mine):
        return ""
    row, known = mine.iloc[0], ""
    places = {"test": "On test"}
    if "folds" in row:
        places = {"dev": f"Cross-fitted over {row['speakers']} speakers"} | places
    for split, where in places.items():
        if np.isfinite(row[f"acc_{split}"]):
            known += (
                f" {where}, over {row['seeds']} fresh seeds: accuracy "
                f"{_cell(row[f'acc_{split}'], row[f'acc_{split}_half'])} %, gap "
                f"{_cell(row[f'max_gap_{split}'], row[f'max_gap_{split}_half'])} points."
            )
    return known


def table(
    info: front.FrontInfo, runs: pd.DataFrame, records: Records | None = None
) -> pd.DataFrame:
    """One row a configuration, in the front's order, ERM last where it is not on the front.

    Columns: trial_id, loss, on_front, seeds (that ended), degenerate (of them), and for each metric
    its value in the search (`acc`), its mean over seeds on dev and test (`acc_dev`, `acc_test`) and
    the half-widths of their intervals (`acc_dev_half` ...); NaN under two seeds. If cross-fitted,
    also folds, speakers (who judge `dev`) and of acc, w_f1 and max_gap the paired difference to ERM
    with its interval over speakers (`acc_change`, `acc_change_low`, `acc_change_high`).

    Args:
        records: of the sweep; only a cross-fitted one needs them.
    """
    crossed, changes = "folds" in runs, {}
    if crossed:
        changes = cross_fitted.differences(records, runs, _baseline(info, runs))
    rows = []
    for trial_id, mine in runs.groupby("trial_id", sort=False):
        point = info.find(trial_id)
        row = {
            "trial_id": trial_id,
            "loss": "dial" if point.dial else point.hyperparameters.get("loss"),
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
        if crossed:
            row |= {"folds": int(dev["folds"].iloc[0]), "speakers": int(dev["speakers"].iloc[0])}
            row |= _changes(changes.get(trial_id))
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values(["on_front", "acc"], ascending=False, ignore_index=True)


def _baseline(info: front.FrontInfo, runs: pd.DataFrame) -> str | None:
    """The ERM trial that others are compared with: the front's own, else the first confirmed."""
    known = list(runs["trial_id"].unique())
    if info.erm is not None and info.erm.trial_id in known:
        return info.erm.trial_id
    return next((name for name in known if info.find(name).is_erm), None)


def _changes(change: dict[str, PairedDifference] | None) -> dict[str, float]:
    """The columns of a configuration's differences to ERM; NaN without them."""
    columns = {}
    for name in COMPARED:
        mine = change[name] if change else None
        values = (mine.value, mine.low, mine.high) if mine else [float("nan")] * 3
        columns |= {f"{name}_change{end}": value for end, value in zip(ENDS, values, strict=True)}
    return columns


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
            if "folds" in table:
                row[f"{name} less ERM"] = _change(values, name)
        rows.append(row)
    return pd.DataFrame(rows).to_string(index=False)


def sentences(table: pd.DataFrame) -> list[str]:
    """How much of the search's values was luck, and whether their order stays."""
    lines, where = _about_folds(table), {"dev": "dev", "test": "test"}
    if "folds" in table:
        where["dev"] = f"all {table['speakers'].iloc[0]} speakers"
    picked = table[table["on_front"]]
    for name, sign in (("acc", 1), ("max_gap", -1)):
        title = METRICS[name].short
        for split in ("dev", "test"):
            lost = (sign * (picked[name] - picked[f"{name}_{split}"])).mean()
            if np.isfinite(lost):
                way = "worse" if lost > 0 else "better"
                lines.append(
                    f"Over fresh seeds the front's {title} on {where[split]} is "
                    f"{100 * abs(lost):.1f} points {way} than the search saw."
                )
    if len(table) >= 4:
        for name in ("acc", "max_gap"):
            rank = stats.spearmanr(table[name], table[f"{name}_dev"]).statistic
            if np.isfinite(rank):
                lines.append(
                    f"The order of the configurations by {METRICS[name].short} in the search "
                    f"and over fresh seeds agrees by {rank:.2f} "
                    f"(rank correlation of {len(table)}, {where['dev']})."
                )
    poor = table.loc[table["degenerate"] > 0, "trial_id"]
    if len(poor):
        lines.append(f"Near a constant predictor with some seeds: {', '.join(poor)}.")
    means = "Intervals of the means" if "folds" in table else "Intervals"
    lines.append(
        f"{means} are 95 % t-intervals over seeds alone; the speakers are the same for all seeds."
    )
    return lines


def _about_folds(table: pd.DataFrame) -> list[str]:
    """Who judges a cross-fitted front, and each configuration beside ERM; nothing of another."""
    if "folds" not in table:
        return []
    speakers, folds = table[["speakers", "folds"]].iloc[0]
    lines = [
        f"Cross-fitted over {folds} folds: each of the {speakers} speakers of train and dev is "
        "judged by models that never heard them; on test, the mean of the folds' models."
    ]
    known = table[np.isfinite(table["acc_change"])]
    compared = [
        f"{row['trial_id']} accuracy {_change(row, 'acc')}, gap {_change(row, 'max_gap')}"
        for _, row in known.iterrows()
    ]
    if compared:
        lines.append(
            f"Less ERM's, in points, by the same {speakers} speakers and seeds: "
            f"{'; '.join(compared)} (95 % over speakers; of a gap each bound holds with 95 %)."
        )
    return lines


def _change(row: pd.Series, name: str) -> str:
    """A difference to ERM with its interval, in points."""
    value, low, high = (100 * row[f"{name}_change{end}"] for end in ENDS)
    if not np.isfinite(value):
        return "-"
    return f"{value:+.1f}" + (
        f" [{low:+.1f}, {high:+.1f}]" if np.isfinite([low, high]).all() else ""
    )


def _cell(mean: float, half: float) -> str:
    if not np.isfinite(mean):
        return "-"
    return f"{100 * mean:.1f}" + (f" ± {100 * half:.1f}" if np.isfinite(half) else "")
