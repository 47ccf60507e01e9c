"""The paper's table of a benchmark or of a sweep over named points, printed and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis.tables import benchmark_table, formats
from ermgap.config import Config
from ermgap.records import Records
from sweeps.search import order


def write(
    predictions: Mapping[str, pd.DataFrame],
    *,
    config: Config,
    utterances: pd.DataFrame,
    folder: Path,
    baseline: str | None,
) -> None:
    """Print the table and write it.

    Args:
        predictions: by the name of the row.
        config: of the run, for labels and support.
        utterances: of the corpora; they say which corpora are synthetic.
        folder: gets benchmark.csv, .tex, .html and .md.
        baseline: the row that others are compared with, if it is there.
    """
    table = benchmark_table.table(
        predictions,
        labels=config.data.labels,
        **config.compared,
        baseline=baseline if baseline in predictions else None,
        synthetic=sorted(utterances.loc[utterances["synthetic"].astype(bool), "corpus"].unique()),
    )
    print(formats.to_text(table))
    for path in formats.write(table, folder):
        print(f"written: {path}")


def write_points(config: Config, records: Records) -> None:
    """Print and write the table of a sweep over named points on dev; ERM is the baseline."""
    trials = {trial.trial_id: trial for trial in records.trials()}
    predictions, baseline = {}, None
    for number, (name, point) in enumerate(config.sweep.points.items()):
        trial_id = order.trial_id(number)
        trial, table = trials.get(trial_id), records.predictions(trial_id)
        if trial is None or table is None or trial.status == "failed":
            print(f"{name} has no predictions; it is not in the table")
            continue
        predictions[name] = table
        if point.get("loss") == "erm" and baseline is None:
            baseline = name
    if predictions:
        write(
            predictions,
            config=config,
            utterances=records.table(),
            folder=records.directory,
            baseline=baseline,
        )
