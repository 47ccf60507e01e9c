"""Everything that is written about a sweep: tables, figures and one page of plain words.

    report.write(Path("results/demo"))
writes DIR/front.parquet, DIR/summary.json and, in analysis/plots/<name of DIR>/, pareto.csv,
pareto.png, pareto.html and report.html. It works while the sweep runs and says how far it is.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import (
    choose,
    doctor,
    families,
    family_picture,
    figures,
    front,
    interactive,
    layout,
    uncertainty,
    words,
)
from analysis.front import FrontInfo, Point
from analysis.page import page
from ermgap.errors import UserError
from ermgap.records import Records, write_atomically

PLOTS = Path("analysis/plots")
WHAT = "Accuracy against gender gap"
UNITS = {name: "%" for name in front.SCORES} | {"max_gap": "points", "max_loss_gap": "nats"}


def write(directory: Path | str, plots: Path | str = PLOTS, *, quiet: bool = False) -> Path:
    """Write every file about a sweep and return the folder of its plots.

    Args:
        directory: a sweep's folder, finished or not.
        plots: figures go to a folder in here that has the name of `directory`.
        quiet: print nothing; otherwise the front as a table, the choices and the paths.

    Raises UserError for a folder that is no sweep, has no trial yet, or cannot be read or written.
    """
    directory = Path(directory)
    records = Records.open(directory)
    info = _read(records)
    bars = uncertainty.standard_errors(records, [p.trial_id for p in info.highlighted])
    groups = families.families(info, records)
    examined = doctor.examine(info, records)
    folder = Path(plots) / directory.resolve().name
    table = trials_table(info, bars)
    try:
        records.write_front(table[table["front"]].drop(columns="front").reset_index(drop=True))
        records.write_summary(summary(info, bars) | {"doctor": examined})
        _write_plots(folder, info, bars, table, groups, doctor.sentences(examined))
    except OSError as problem:
        raise UserError(
            f"the report of {directory} cannot be written ({problem.strerror or problem}); "
            "make its folder writable or choose another with --plots."
        ) from problem
    if not quiet:
        print(text(info, bars))
        if groups:
            print("\n" + "\n".join(families.sentences(groups, info)))
        print("\n" + "\n".join(["What to mind:", *doctor.sentences(examined)]))
        by_loss = ", families.png" if groups else ""
        print(f"\nwritten: {folder}/pareto.png, pareto.html, pareto.csv, report.html{by_loss}")
    return folder


def trials_table(info: FrontInfo, bars: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: what it is, its scores (fractions, nats) and its configuration.

    Columns: trial_id, kind, status, reason, front, degenerate, epoch, the objectives first and then
    the other scores, acc_se, max_gap_se, worst_cell, and `config.<name>` for each hyperparameter.
    """
    names = [*info.objectives, *(name for name in front.SCORES if name not in info.objectives)]
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
            **{f"config.{key}": _plain(value) for key, value in p.config.items()},
        }
        for p in info.points
    ]
    table = pd.DataFrame(rows).merge(bars.drop(columns="lone_speakers"), on="trial_id", how="left")
    # Parquet has one type a column; a hyperparameter may be a number here and a word there.
    for column in (name for name in table if pd.api.types.is_object_dtype(table[name])):
        if table[column].dropna().map(type).nunique() > 1:
            table[column] = table[column].map(str, na_action="ignore")
    return table.astype({"front": bool, "degenerate": bool, "epoch": "Int64"})


def summary(info: FrontInfo, bars: pd.DataFrame) -> dict[str, object]:
    """What summary.json holds: front, hypervolume, reference point, choices, ERM, counts, n_dev."""
    errors = bars.set_index("trial_id").to_dict("index")
    chosen = {name: rule(info) for name, rule in choose.RULES.items()}
    limits = {f"{x:g}": chosen[f"gap at most {100 * x:g}"] for x in choose.GAP_LIMITS}
    return {
        "name": info.name,
        "finished": info.done,
        "trials": {"planned": info.planned, "complete": info.complete, "by_kind": info.counts},
        "by_status": pd.Series([p.status for p in info.points]).value_counts().to_dict(),
        "n_dev": info.sweep.get("n_dev"),
        "dev_speakers": info.speakers,
        "synthetic": list(info.sweep.get("synthetic") or []),
        "objectives": dict(zip(info.objectives, info.directions, strict=True)),
        "reference_point": dict(zip(info.objectives, info.reference, strict=True)),
        "hypervolume": info.hypervolume,
        "floor": info.floor,
        "majority_rate": info.majority_rate,
        "front": [_brief(point, errors) for point in info.front],
        "erm": _brief(info.erm, errors),
        "knee": _brief(info.find(chosen["knee"].trial_id), errors),
        "most_accurate": _brief(info.find(chosen["most accurate"].trial_id), errors),
        "fairest": _brief(info.find(chosen["fairest"].trial_id), errors),
        "best_under": {x: _limited(info, choice) for x, choice in limits.items()},
        "bars": "one standard error over resampled speakers, no 95 % interval",
    }


def text(info: FrontInfo, bars: pd.DataFrame) -> str:
    """The front as a compact table for a terminal, with progress and the choices below."""
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(info.counts.items()))
    shown = display(info, bars)
    lines = [f"{info.name}: {info.complete} of {info.planned} trials complete ({counts})"]
    lines.append(shown.to_string(index=False) if len(shown) else "the front is empty")
    lines.append(f"hypervolume {info.hypervolume:.4f} of 1")
    lines += ["", *_choices(info)]
    lines += ["", *words.caveats(info, bars)]
    return "\n".join(lines)


def display(info: FrontInfo, bars: pd.DataFrame) -> pd.DataFrame:
    """The front and the ERM baseline as text: percent, points, and what sets them apart."""
    errors = bars.set_index("trial_id").to_dict("index")
    points = info.highlighted
    keys = dict.fromkeys(key for point in points for key in point.config)
    differing = [k for k in keys if len({str(p.config.get(k)) for p in points}) > 1 or k == "loss"]
    rows = []
    for point in points:
        row = {"trial": point.trial_id, "": "front" if point.on_front else "(ERM, dominated)"}
        for name in dict.fromkeys([*info.objectives, "acc", "max_gap", "w_f1"]):
            row[f"{name} {UNITS[name]}"] = _cell(name, point, errors)
        row |= {key: _setting(point.config.get(key)) for key in differing}
        rows.append(row)
    return pd.DataFrame(rows)


def _read(records: Records) -> FrontInfo:
    try:
        info = front.info(records)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as problem:
        raise UserError(
            f"the records in {records.directory} cannot be read "
            f"({type(problem).__name__}: {problem}); restore sweep.yaml and trials.jsonl."
        ) from problem
    if not info.points:
        raise UserError(
            f"{records.directory} holds no trial yet; wait for the first epoch of the sweep to end."
        )
    return info


def _write_plots(
    folder: Path,
    info: FrontInfo,
    bars: pd.DataFrame,
    table: pd.DataFrame,
    groups: list[families.Family],
    advice: list[str],
) -> None:
    write_atomically(folder / "pareto.csv", lambda path: table.to_csv(path, index=False))
    write_atomically(folder / "pareto.png", lambda p: figures.draw_png(info, p, bars=bars))
    write_atomically(folder / "pareto.html", lambda p: interactive.draw_html(info, p, bars=bars))
    by_loss = ""
    if groups:
        write_atomically(folder / "families.png", lambda p: family_picture.draw(groups, info, p))
        by_loss = f"<h2>Fronts by loss</h2>{_picture(folder / 'families.png', 'Fronts by loss')}"
        by_loss += _items(families.sentences(groups, info))
    content = _page(info, bars, _picture(folder / "pareto.png", WHAT), by_loss, advice)
    write_atomically(folder / "report.html", lambda p: p.write_text(content, encoding="utf-8"))


def _picture(path: Path, words: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{words}' src='data:image/png;base64,{content}'>"


def _page(
    info: FrontInfo, bars: pd.DataFrame, picture: str, by_loss: str, advice: list[str]
) -> str:
    shown = display(info, bars)
    table = shown.to_html(index=False, border=0) if len(shown) else "<p>The front is empty.</p>"
    return page(
        f"Report: {info.name}",
        f"{_paragraphs(words.sentences(info, bars))}"
        f"{picture}"
        f"<p class='soft'><a href='pareto.html'>Interactive picture</a> · all trials: "
        f"<a href='pareto.csv'>pareto.csv</a></p>"
        f"<h2>The front</h2><div class='scroll'>{table}</div>"
        f"{by_loss}"
        f"<h2>Choices by rule</h2>{_items(_choices(info))}"
        f"<h2>What to mind in the next sweep</h2>{_items(advice)}"
        f"<h2>Caveats</h2>{_items(words.caveats(info, bars))}",
    )


def _choices(info: FrontInfo) -> list[str]:
    return list(dict.fromkeys(rule(info).sentence for rule in choose.RULES.values()))


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
        "config": point.config,
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


def _cell(name: str, point: Point, errors: Mapping) -> str:
    _, factor, *_ = layout.AXES[name]
    value, error = point.values[name] * factor, errors.get(point.trial_id, {}).get(f"{name}_se")
    digits = 1 if factor == 100 else 3
    if not np.isfinite(value):
        return "undefined"
    shown = f"{value:.{digits}f}"
    return shown if error is None or not np.isfinite(error) else f"{shown} ± {error * factor:.1f}"


def _setting(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> object:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _paragraphs(lines: list[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _items(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
