"""Paired differences to ERM over every speaker, of a front that was confirmed on speaker folds.

    changes = differences(records, confirmed.runs(records), "t0000")
    changes["t0004"]["max_gap"].high

Each configuration is the mean of its seeds, whose predictions of all folds together are of all
speakers; ERM is the mean of the same seeds. So what seeds differ in is averaged, and the intervals
are over speakers.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.statistics import paired
from analysis.statistics.paired import PairedDifference
from analysis.statistics.speaker_sums import SpeakerSums
from analysis.statistics.uncertainty import classes_of
from ermgap.errors import UserError
from ermgap.records import Records, file_names

RESAMPLES = 2000


def differences(
    records: Records, runs: pd.DataFrame, erm: str | None
) -> dict[str, dict[str, PairedDifference]]:
    """acc, w_f1 and max_gap of each configuration less ERM's, by trial id.

    Configurations without a seed in which they and ERM ended are not in it; it is empty where
    predictions are lost.

    Args:
        runs: a row a configuration, seed and split, with its trial's id in each fold (rerun).
        erm: the trial id of the baseline.
    """
    ended = runs[(runs["split"] == "dev") & (runs["status"] != "failed")]
    try:
        tables = _pooled(records, ended)
        sums = SpeakerSums.of(tables, **classes_of(records))
    except (UserError, OSError, ValueError):
        return {}
    weights = sums.draws(RESAMPLES, np.random.default_rng(0))
    scores = {name: paired.scores(sums, name, weights) for name in tables}
    seeds = ended.groupby("trial_id", sort=False)["seed"].agg(set)
    changes = {}
    for trial_id in seeds.index.drop(erm, errors="ignore"):
        both = sorted(seeds[trial_id] & seeds.get(erm, set()))
        if both:
            mine, theirs = (
                paired.mixture([1 / len(both)] * len(both), [scores[_key(name, s)] for s in both])
                for name in (trial_id, erm)
            )
            changes[trial_id] = paired.difference(sums, mine, theirs)
    return changes


def _pooled(records: Records, ended: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The predictions of all folds together, by configuration and seed."""
    folds = int(ended["folds"].iloc[0]) if len(ended) else 0
    place = records.directory / file_names.CONFIRM_FOLDS
    children = [Records.open(place / f"fold-{fold}") for fold in range(folds)]
    pooled = {}
    for trial_id, seed, rerun in ended[["trial_id", "seed", "rerun"]].itertuples(index=False):
        tables = [child.predictions(rerun) for child in children]
        if any(table is None for table in tables):
            raise UserError(f"the predictions of {trial_id} are lost; confirm the sweep anew.")
        pooled[_key(trial_id, seed)] = pd.concat(tables, ignore_index=True)
    return pooled


def _key(trial_id: str, seed: int) -> str:
    return f"{trial_id} seed {seed}"
