"""Error bars of a trial's accuracy and largest gap: standard errors by resampling speakers.

    bars = standard_errors(records, ["t0000", "t0004"])     # DataFrame, one row a trial
They are standard errors around the observed point and no 95 % intervals: a percentile interval of a
maximum of absolute differences cannot contain zero, and the maximum itself is biased upward.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

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
        table = dev_predictions(records, trial_id)
        if table is None or table.empty:
            continue
        rng = np.random.default_rng(seed)
        try:
            row = bootstrap(table, **classes_of(records), resamples=resamples, rng=rng)
        except UserError:  # a prediction that is no label, say: `evidence` has which and why
            continue
        rows.append({"trial_id": trial_id, **row})
    return pd.DataFrame(rows, columns=["trial_id", "acc_se", "max_gap_se", "lone_speakers"])


def classes_of(records: Records) -> dict:
    """The sweep's labels and the support of classes and cells, as `SpeakerSums.of` takes them."""
    data = (records.sweep.get("config") or {}).get("data") or {}
    return {
        "labels": records.sweep["labels"],
        "min_support": int(data.get("min_support", 5)),
        "cell_support": data.get("cell_support"),
    }


def bootstrap(
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    min_support: int,
    cell_support: int | None = None,
    resamples: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Standard errors of acc and max_gap under resampling of speakers within language and gender.

    The resamples are `SpeakerSums.draws`; `lone_speakers` counts the strata of one speaker, where
    the errors miss what differs between speakers. The classes of the gaps are those with enough
    support in the whole set.
    """
    support = {"min_support": min_support, "cell_support": cell_support}
    sums = SpeakerSums.of({"": predictions}, labels=labels, **support)
    values = sums.values(sums.draws(resamples, rng), "")
    return {
        "acc_se": float(spread(values["acc"])),
        "max_gap_se": float(spread(values["max_gap"])),
        "lone_speakers": len(sums.lone),
    }


def dev_predictions(records: Records, trial_id: str) -> pd.DataFrame | None:
    """The trial's predictions on dev; None where they are absent or cannot be read."""
    # A report without one bar is better than no report: the caller says which bars are missing.
    try:
        table = records.predictions(trial_id)
    except (OSError, ValueError):
        return None
    if table is None:
        return None
    return table[table["split"] == "dev"] if "split" in table else table


def spread(drawn: np.ndarray) -> np.ndarray:
    """Standard deviation over resamples [R, ...] of what is defined; NaN under two of them."""
    finite = np.isfinite(drawn)
    n = finite.sum(0)
    mean = np.where(finite, drawn, 0).sum(0) / np.maximum(n, 1)
    squares = np.where(finite, drawn - mean, 0) ** 2
    return np.where(n > 1, np.sqrt(squares.sum(0) / np.maximum(n - 1, 1)), np.nan)
