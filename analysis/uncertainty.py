"""Error bars of a trial's accuracy and largest gap: standard errors by resampling speakers.

    bars = standard_errors(records, ["t0000", "t0004"])     # DataFrame, one row a trial
They are standard errors around the observed point and no 95 % intervals: a percentile interval of a
maximum of absolute differences cannot contain zero, and the maximum itself is biased upward.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ermgap import metrics
from ermgap.records import Records

RESAMPLES = 400


def standard_errors(
    records: Records, trial_ids: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """One row per trial with readable dev predictions: trial_id, acc_se, max_gap_se, lone_speakers.

    Standard errors are fractions. Every trial sees the same resamples (same seed, same order), so
    their bars are comparable.
    """
    labels = records.sweep["labels"]
    data = (records.sweep.get("config") or {}).get("data") or {}
    found = []
    for trial_id in trial_ids:
        table = dev_predictions(records, trial_id)
        if table is None or table.empty:
            continue
        rng = np.random.default_rng(seed)
        least = int(data.get("min_support", 5))
        row = bootstrap(table, labels=labels, min_support=least, resamples=resamples, rng=rng)
        found.append({"trial_id": trial_id, **row})
    return pd.DataFrame(found, columns=["trial_id", "acc_se", "max_gap_se", "lone_speakers"])


def bootstrap(
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    min_support: int,
    resamples: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Standard errors of acc and max_gap under resampling of speakers within language and gender.

    With n speakers in a stratum each resample draws n - 1 of them with replacement and weights them
    n / (n - 1) (Rao and Wu 1988, the rescaling bootstrap): the plain one is too short by
    sqrt((n - 1)/n), which is 29 % at two speakers. In a stratum of one speaker utterances are drawn
    instead, which misses what differs between speakers: `lone_speakers` counts those strata. The
    classes of the gaps are those with enough support in the whole set.
    """
    counts, classes, lone = resampled_counts(
        predictions, labels=labels, min_support=min_support, resamples=resamples, rng=rng
    )
    return {
        "acc_se": _spread(metrics.accuracy(counts.sum((1, 2)))),
        "max_gap_se": _spread(largest_gap(counts, classes)),
        "lone_speakers": lone,
    }


def resampled_counts(
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    min_support: int,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Confusions of each resample, [resamples, ...] as `metrics.confusions` gives them.

    Also the classes that count for the gaps, and the number of strata with a single speaker.
    """
    table = predictions.sort_values("utterance_id", kind="stable").reset_index(drop=True)
    coded = metrics.code(table, labels=labels)
    whole = metrics.confusions(coded)
    counts = np.zeros((resamples, *whole.shape))
    lone = 0
    strata = table.groupby(["language", "gender"], sort=True).indices
    for rows in strata.values():
        units = pd.factorize(table["speaker"].iloc[rows])[0]
        if units.max() == 0:
            lone, units = lone + 1, np.arange(len(rows))
        counts += _resampled(coded, rows, units, shape=whole.shape, resamples=resamples, rng=rng)
    return counts, metrics.supported(whole, min_support=min_support), lone


def largest_gap(counts: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The largest AVG gap over cells of each resample, [resamples]; -inf where none is defined."""
    gap = metrics.gender_gaps(counts, classes=classes)["avg"]
    return np.where(np.isfinite(gap), gap, -np.inf).max(-1)


def _resampled(
    coded: metrics.Coded,
    rows: np.ndarray,
    units: np.ndarray,
    *,
    shape: tuple[int, ...],
    resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Weighted counts [resamples, *shape] of one stratum whose rows belong to `units` [n]."""
    n = int(units.max()) + 1
    draws = max(n - 1, 1)
    weights = rng.multinomial(draws, np.full(n, 1 / n), size=resamples) * (n / draws)
    index = (coded.cell[rows], coded.gender[rows], coded.label[rows], coded.prediction[rows])
    flat = np.ravel_multi_index(index, shape)
    used, column = np.unique(flat, return_inverse=True)
    per_unit = np.zeros((n, len(used)))
    np.add.at(per_unit, (units, column), 1.0)
    counts = np.zeros((resamples, int(np.prod(shape))))
    counts[:, used] = weights @ per_unit
    return counts.reshape(resamples, *shape)


def _spread(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


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
