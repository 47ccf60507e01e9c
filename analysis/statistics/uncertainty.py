"""Error bars of a trial's accuracy and largest gap: standard errors by resampling speakers.

    bars = standard_errors(records, ["t0000", "t0004"])     # DataFrame, one row a trial
They are standard errors around the observed point and no 95 % intervals: a percentile interval of a
maximum of absolute differences cannot contain zero, and the maximum itself is biased upward.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from analysis.front import Attribute
from analysis.statistics.speaker_sums import SpeakerSums
from ermgap.errors import UserError
from ermgap.records import Records

RESAMPLES = 400


def standard_errors(
    records: Records, trial_ids: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """One row per trial with readable dev predictions: trial_id, acc_se, max_gap_se, lone_speakers.

    Standard errors are fractions. Every trial sees the same resamples (same seed, same order), so
    their bars are comparable.
    """
    rows = []
    for trial_id in trial_ids:
        sums, _ = speaker_sums(records, [trial_id])  # `evidence` has which lack them, and why
        if sums is not None:
            rng = np.random.default_rng(seed)
            rows.append({"trial_id": trial_id, **bootstrap(sums, resamples=resamples, rng=rng)})
    return pd.DataFrame(rows, columns=["trial_id", "acc_se", "max_gap_se", "lone_speakers"])


def speaker_sums(
    records: Records, trial_ids: Iterable[str]
) -> tuple[SpeakerSums | None, dict[str, str]]:
    """The sums of the trials' dev predictions, and the reason for each trial that is not in them.

    None where none is. All are of the same utterances as the first that can be read.
    """
    tables = {trial_id: dev_predictions(records, trial_id) for trial_id in trial_ids}
    omitted = dict.fromkeys(tables, "its predictions are absent or unreadable")
    omitted = {name: reason for name, reason in omitted.items() if tables[name] is None}
    tables = {name: table for name, table in tables.items() if table is not None}
    cell = ((records.sweep.get("config") or {}).get("sweep") or {}).get("cell")
    try:
        return SpeakerSums.of(tables, **classes_of(records), cell=cell, omitted=omitted), omitted
    except UserError:
        return None, omitted


def classes_of(records: Records) -> dict:
    """The sweep's labels, attribute and support, as `SpeakerSums.of` takes them."""
    data = (records.sweep.get("config") or {}).get("data") or {}
    return {
        "labels": records.sweep["labels"],
        "attribute": Attribute.of(records.sweep).columns,
        "min_support": int(data.get("min_support", 5)),
        "cell_support": data.get("cell_support"),
        "speaker_support": int(data.get("speaker_support") or 1),
    }


def bootstrap(sums: SpeakerSums, *, resamples: int, rng: np.random.Generator) -> dict[str, float]:
    """Standard errors of acc and max_gap of the first system under `SpeakerSums.draws`.

    `lone_speakers` counts the strata of one speaker, where the errors miss what differs between
    speakers. The classes of the gaps are those with enough support in the whole set.
    """
    values = sums.values(sums.draws(resamples, rng), next(iter(sums.counts)))
    return {
        "acc_se": float(spread(values["acc"])),
        "max_gap_se": float(spread(values["max_gap"])),
        "lone_speakers": len(sums.lone),
    }


def dev_predictions(records: Records, trial_id: str) -> pd.DataFrame | None:
    """The trial's predictions on dev; None where they are absent, empty or cannot be read."""
    # A report without one bar is better than no report: the caller says which bars are missing.
    try:
        table = records.predictions(trial_id)
    except (OSError, ValueError):
        return None
    if table is not None and "split" in table:
        table = table[table["split"] == "dev"]
    return None if table is None or table.empty else table


def spread(drawn: np.ndarray) -> np.ndarray:
    """Standard deviation over resamples [R, ...] of what is defined; NaN under two of them."""
    finite = np.isfinite(drawn)
    n = finite.sum(0)
    mean = np.where(finite, drawn, 0).sum(0) / np.maximum(n, 1)
    squares = np.where(finite, drawn - mean, 0) ** 2
    return np.where(n > 1, np.sqrt(squares.sum(0) / np.maximum(n - 1, 1)), np.nan)
