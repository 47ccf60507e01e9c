"""The interactive part of the report: a picture of all trials, and the details of each.

    body = explorer.html(info, records, bars, evidence)
One block of HTML with its data, style and script inside (static/), which fetches nothing.
Transcripts and audio are never part of it; utterances are named by their ids, and with `with_text`
by their transcripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.figures import figures, layout
from analysis.front import FrontInfo, Point, choose, importance
from analysis.statistics import Evidence
from analysis.statistics.evidence import levelled
from analysis.statistics.uncertainty import classes_of, dev_predictions
from ermgap import metrics
from ermgap.config import METRICS
from ermgap.errors import UserError
from ermgap.records import Records, Trial, to_json

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("svg.js", "scatter.js", "detail.js", "parallel.js", "explorer.js")
# Trials whose predictions are in the page: the front, ERM, then those nearest to the front.
DETAILED = 60
UTTERANCES = 25  # of a trial are listed
BINS = 8


def html(
    info: FrontInfo,
    records: Records,
    bars: pd.DataFrame,
    evidence: Evidence,
    *,
    with_text: bool = False,
) -> str:
    """The block, to stand anywhere in a page."""
    content = data(info, records, bars, evidence, with_text=with_text)
    style = (STATIC / "explorer.css").read_text(encoding="utf-8")
    script = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return (
        f"<style>{style}</style><section id='explorer' aria-label='Explorer'></section>"
        f"{as_script('explorer-data', content)}<script>{script}</script>"
    )


def as_script(name: str, content: object) -> str:
    """Plain values as a block that a script reads by the id `name`."""
    encoded = to_json(content, separators=(",", ":"))
    encoded = encoded.replace("<", "\\u003c")  # a value may hold </script>
    return f"<script type='application/json' id='{name}'>{encoded}</script>"


def data(
    info: FrontInfo,
    records: Records,
    bars: pd.DataFrame,
    evidence: Evidence,
    *,
    with_text: bool = False,
) -> dict[str, object]:
    """Everything that the page shows, as plain values (fractions, nats)."""
    errors = bars.set_index("trial_id").to_dict("index")
    x, y = layout.plane(info)
    detailed = dict.fromkeys(p.trial_id for p in (*info.highlighted, *info.best(DETAILED)))
    trials = {trial.trial_id: trial for trial in records.trials()}
    texts = _texts(records) if with_text else {}
    details = {}
    for trial_id in list(detailed)[:DETAILED]:
        trial = trials.get(trial_id)  # None of a position of the dial, which was not trained
        details[trial_id] = {"history": _history(trial) if trial else []}
        details[trial_id] |= _predicted(records, trial_id, trial and _worst_cell(trial), texts)
    band = layout.picture(info, bars, evidence).band
    return {
        "axes": {
            name: {"title": metric.title, "label": metric.label, "long": metric.axis_title,
                   "factor": metric.scale, "span": metric.least_span,
                   "direction": metric.direction}
            for name in METRICS
            for metric in [info.attribute.metric(name)]
        },
        "x": x,
        "y": y,
        "objectives": info.objectives,
        "labels": records.sweep["labels"],
        "attribute": info.attribute.title,
        **({"cell": info.cell} if info.cell else {}),
        "styles": {
            name: {"color": figures.GREY if fill == "none" else fill, "open": fill == "none",
                   "title": title}
            for name, (_, fill, _, _, title) in figures.STYLES.items()
        },
        "points": [_point(info, point, errors, evidence) for point in info.candidates],
        "details": details,
        "band": band.tolist(),
        "rules": [asdict(rule(info, evidence)) for rule in choose.rules(info).values()],
        "importance": [asdict(share) for share in importance.importance(info)],
    }  # fmt: skip


def _point(info: FrontInfo, point: Point, errors: Mapping, evidence: Evidence) -> dict:
    own = evidence.get(point.trial_id)
    return {
        "id": point.trial_id,
        "style": figures.style_of(info, point),
        "kind": point.kind,
        "front": point.on_front,
        "reason": point.reason,
        "epoch": point.epoch,
        "values": point.values,
        "config": point.hyperparameters,
        "cell": point.worst_cell,
        "se": errors.get(point.trial_id, {}),
        "levelled": levelled(info, point) if point.eligible else False,
        "evidence": None if own is None else asdict(own)
        | {"is_gap": own.is_gap, "fell": own.fell},
        **({"dial": point.dial} if point.dial else {}),
    }  # fmt: skip


def _history(trial: Trial) -> list[dict]:
    return [{name: row.get(name) for name in ("epoch", "train_loss", "raised_share")}
            | {"lambda": row.get("lambda_mean", row.get("lambda"))}  # a mean, as the loss is
            | {name: (row.get("dev") or {}).get(name) for name in ("acc", "max_gap")}
            for row in trial.rows]  # fmt: skip


def _predicted(records: Records, trial_id: str, cell: str | None, texts: Mapping[str, str]) -> dict:
    """Recall, confusions, calibration and the utterances of one trial; `why` without them.

    `cell` is that of the largest gap, None where it must be found.
    """
    table = dev_predictions(records, trial_id)
    asked = classes_of(records)
    labels = asked["labels"]
    if table is None or table.empty:
        return {"why": "its predictions are absent or unreadable"}
    try:
        coded = metrics.encode(table, labels=labels, attribute=asked["attribute"])
        cell = cell or metrics.evaluate(table, **asked)["worst_cell"]
    except UserError as problem:
        return {"why": str(problem)}
    counts, _ = metrics.confusions(coded)
    margins = metrics.Margins.of(counts)
    return {
        "cells": coded.cells,
        "sides": coded.sides,
        "cell": cell,
        "n": margins.support.astype(int).tolist(),
        "hits": margins.hits.astype(int).tolist(),
        "confusions": counts.sum(0).astype(int).tolist(),
        "calibration": _calibration(table, coded, labels),
        "utterances": _utterances(table, coded, cell, labels, texts),
    }


def _worst_cell(trial: Trial) -> str | None:
    """The recorded cell of the largest gap, of trials before `cells_counted`; else None."""
    epoch = trial.selected.get("epoch")
    dev = next((row.get("dev") or {} for row in trial.rows if row.get("epoch") == epoch), {})
    return None if "cells_counted" in dev else dev.get("worst_cell")


def _calibration(
    table: pd.DataFrame, coded: metrics.EncodedPredictions, labels: Sequence[str]
) -> list | None:
    """By side: bins of (confidence, share right, n), and the calibration error; None without."""
    columns = [f"logp_{label}" for label in labels]
    if not set(columns) <= set(table.columns):
        return None
    logp = table[columns].to_numpy(float)
    p = np.exp(logp - logp.max(1, keepdims=True))
    sure = p.max(1) / p.sum(1)
    if not np.isfinite(sure).all():
        return None
    right = coded.label == coded.prediction
    sides = []
    for side in range(len(coded.sides)):
        mine = coded.side == side
        place = np.minimum((sure[mine] * BINS).astype(int), BINS - 1)
        bins = [
            (sure[mine][place == k].mean(), right[mine][place == k].mean(), int((place == k).sum()))
            for k in range(BINS)
            if (place == k).any()
        ]
        total = sum(n for *_, n in bins) or 1
        error = sum(n * abs(a - b) for a, b, n in bins) / total
        sides.append({"bins": bins, "error": error})
    return sides


def _utterances(
    table: pd.DataFrame,
    coded: metrics.EncodedPredictions,
    worst: str | None,
    labels: Sequence[str],
    texts: Mapping[str, str],
) -> list[dict]:
    """The errors of the side that does worst in the worst cell, clearest first."""
    if worst not in coded.cells:
        return []
    counts, _ = metrics.confusions(coded)
    cell = coded.cells.index(worst)
    worse = int(np.nanargmin(metrics.accuracy(counts[cell])))
    wrong = (coded.cell == cell) & (coded.side == worse) & (coded.label != coded.prediction)
    rows = table[wrong]
    columns = [f"logp_{label}" for label in labels]
    if set(columns) <= set(table.columns):
        logp = rows[columns].to_numpy(float)
        order = np.argsort(np.take_along_axis(logp, coded.label[wrong][:, None], 1)[:, 0])
        rows = rows.iloc[order]
    names = ["utterance_id", "speaker", "side", "label", "prediction"]
    rows = rows.assign(side=coded.sides[worse])
    listed = (
        rows[[name for name in names if name in rows]]
        .head(UTTERANCES)
        .astype(str)
        .to_dict("records")
    )
    return [row | {"text": texts[row["utterance_id"]]} if row["utterance_id"] in texts else row
            for row in listed]  # fmt: skip


def _texts(records: Records) -> dict[str, str]:
    """Transcripts by utterance; empty where the table has none."""
    try:
        table = records.table()
    except UserError:
        return {}
    column = next((name for name in ("text", "transcript") if name in table), None)
    return {} if column is None else dict(table.set_index("utterance_id")[column].dropna())
