"""The sweep folders of a confirmation: one, or one for each of K speaker folds.

DIR/confirm has the search's own split. DIR/confirm-folds/fold-k deals the speakers of train and dev
anew: fold k holds out the k-th part of them, and each of them once over all folds. Test stays as it
is. Each folder is a sweep over named points, "TRIAL seed SEED", to which seeds can be added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ermgap.attributes import UNKNOWN
from ermgap.config import Config, from_dict
from ermgap.corpora import split
from ermgap.corpora.table import SPLITS
from ermgap.errors import UserError
from ermgap.records import Records, file_names
from sweeps.setup import plan as planning


def require_folds(
    folds: int, config: Config, utterances: pd.DataFrame, folder: Path | str | None
) -> None:
    """UserError where the speakers of a sweep cannot be dealt to so many folds, each once.

    Args:
        utterances: of the sweep.
        folder: of the sweep, if it exists: it may be cross-fitted over other folds.
    """
    if folds < 2:
        raise UserError(f"--folds {folds} is not possible: two folds or more are needed.")
    known = Path(folder or "", file_names.CONFIRM_FOLDS, "fold-0")
    if folder and (known / file_names.SWEEP).exists():
        before = config_of(Records.open(known)).data.folds
        if before != folds:
            raise UserError(
                f"--folds {folds}: {known.parent} is cross-fitted over {before} folds; give "
                f"--folds {before}, or move that folder away."
            )
    if not _is_dealt(utterances, config):
        raise UserError(
            "--folds deals speakers anew, and these corpora come with their own splits; omit "
            "--folds, or leave the splits of train and dev empty in a manifest."
        )
    strata = split.strata_of(_undivided(utterances), config.objective.attribute)
    groups = Counter(stratum for stratum in strata.values() if stratum[1] != UNKNOWN)
    (language, side), fewest = min(groups.items(), key=lambda item: item[1])
    if fewest < folds:
        raise UserError(
            f"--folds {folds}: {language} has {fewest} {side} "
            f"speaker{'s' * (fewest != 1)} in train and dev, and each fold needs one; "
            + (f"give at most --folds {fewest}." if fewest > 1 else "omit --folds.")
        )


def sweep_folders(
    records: Records,
    config: Config,
    wanted: Mapping[str, Mapping],
    *,
    seeds: int,
    folds: int | None,
) -> list[Records]:
    """The sweep folders of the reruns, made or extended to so many seeds.

    Args:
        records, config: of the search.
        wanted: hyperparameters by the id of the search's trial.
        folds: number of speaker folds; None: the split of the search alone.
    """
    storage = records.sweep.get("storage")
    if not folds:
        place = f"{storage}-confirm" if storage else None
        directory, sweep = records.directory / file_names.CONFIRM, records.sweep
        return [
            _folder(directory, config, wanted, seeds, sweep | {"storage": place}, records.table())
        ]
    made = []
    for fold in range(folds):
        place = f"{storage}-confirm-fold-{fold}" if storage else None
        settings = config.replace({"data.folds": folds, "data.fold": fold, "data.test": False})
        settings = settings.replace({"train.select": "last"})
        table = fold_of(records.table(), settings)
        described = planning.describe_sweep(
            settings,
            preset=records.sweep.get("preset"),
            utterances=table,
            storage=place,
            provenance=records.sweep.get("provenance"),
        )
        directory = records.directory / file_names.CONFIRM_FOLDS / f"fold-{fold}"
        made.append(_folder(directory, settings, wanted, seeds, records.sweep | described, table))
    return made


def fold_of(utterances: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The utterances with train and dev dealt anew, as `data` of the configuration says."""
    data = config.data
    return split.assign(
        _undivided(utterances, keep="test"),
        seed=data.split_seed,
        fold=data.fold,
        folds=data.folds,
        attribute=config.objective.attribute,
    )


def config_of(records: Records) -> Config:
    """The configuration of a folder of reruns."""
    return from_dict(records.sweep["config"], where=str(records.directory / file_names.SWEEP))


def _folder(
    directory: Path,
    config: Config,
    wanted: Mapping[str, Mapping],
    seeds: int,
    sweep: Mapping,
    table: pd.DataFrame,
) -> Records:
    """One folder; new reruns are added to its points, which keep their ids."""
    known = Records.open(directory) if (directory / file_names.SWEEP).exists() else None
    points = dict(config_of(known).sweep.points) if known else {}
    for seed in range(1, seeds + 1):
        for trial_id, values in wanted.items():
            seeded = {**values, "train.seed": config.train.seed + seed}
            points.setdefault(f"{trial_id} seed {seed}", seeded)
    settings = config.replace(
        {"sweep.points": points, "sweep.trials": len(points), "sweep.stop_after": None}
    )
    changes = {"config": settings.to_dict(), "trials": len(points), "kind": "confirm", "space": {}}
    if known is None:
        return Records.create(directory, sweep={**sweep, **changes}, table=table)
    if len(points) > known.sweep["trials"]:
        known.clear_done()
    known.write_sweep(known.sweep | changes)
    return known


def _undivided(utterances: pd.DataFrame, *, keep: str = "") -> pd.DataFrame:
    """The utterances of train and dev, and those of `keep`, without a split but `keep`."""
    rows = utterances[utterances["split"].isin(["train", "dev", keep])]
    return rows.assign(split=rows["split"].where(rows["split"] == keep, ""))


def _is_dealt(utterances: pd.DataFrame, config: Config) -> bool:
    """Whether the split is the one that is dealt by speaker, and none that a corpus came with."""
    data = config.data
    drawn = SPLITS if data.test else ("train", "dev")
    kept = utterances["split"].where(~utterances["split"].isin(drawn), "")
    settings = {"fold": data.fold, "folds": data.folds, "test": data.test}
    settings["attribute"] = config.objective.attribute
    try:
        again = split.assign(utterances.assign(split=kept), seed=data.split_seed, **settings)
    except UserError:
        return False
    return list(again["split"]) == list(utterances["split"])
