"""Confirm a sweep: its front (the knee is of it) and its ERM again over seeds, on dev and on test.

    python sweeps/pareto.py --resume results/small --confirm 5
    python sweeps/pareto.py --resume results/small --confirm 5 --folds 5

A point is on the front because its dev values were good, so part of them is luck. Here each
configuration of them is trained anew with seeds that the search did not use, and judged on dev and
on test: the only place of a sweep that touches test. With `--folds K` it is trained K times a seed,
each time without a K-th of the speakers of train and dev, who then judge it: all K parts together
are one judgement by every speaker, none of whom the model had heard. The last epoch counts there,
since choosing one on those who judge would flatter; test gets the mean of the K models' scores.

The reruns lie in sweep folders of their own over named points (reruns.py), which the same flags go
on with, or extend to more seeds. Writes confirmed.parquet (a row a configuration, seed and split),
and the analysis draws confirm.png and writes confirm.csv (analysis/confirmed.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ermgap import metrics
from ermgap.config import METRICS, Config
from ermgap.errors import UserError, in_shell
from ermgap.records import Records, Trial, bucket_mirror, file_names, write_atomically
from sweeps.scheduler.machines import machine
from sweeps.scoring import judging, reruns
from sweeps.search import order

WORSE = ("finished", "degenerate", "failed")  # of a configuration's folds the worst status counts


def require(
    seeds: int | None,
    folds: int | None,
    config: Config,
    utterances: pd.DataFrame,
    *,
    folder: Path | str | None = None,
) -> None:
    """UserError for seeds, folds or a sweep that cannot be confirmed.

    Args:
        seeds, folds: `--confirm` and `--folds`; None: not given.
        utterances: of the sweep.
        folder: of a sweep that is resumed.
    """
    if seeds is None:
        if folds is not None:
            raise UserError(
                f"--folds {folds} says how to confirm; add --confirm SEEDS, or omit it."
            )
        return
    if seeds < 2:
        raise UserError(
            f"--confirm {seeds} is not possible: give two seeds or more, so that there is a spread."
        )
    if config.sweep.points:
        raise UserError(
            "--confirm reruns what a search found, and this sweep names its points; give them "
            "train.seed of their own instead."
        )
    if folds is not None:
        reruns.require_folds(folds, config, utterances, folder)


def run(
    records: Records, config: Config, *, seeds: int, folds: int | None, address: str | None
) -> int:
    """Train what is not trained yet, judge it, write the table; returns the exit status."""
    from analysis import confirmed
    from sweeps.scheduler import driver

    wanted = to_confirm(records)
    if not wanted:
        print("nothing to confirm: no trial is on the front and none is ERM")
        return 0
    children = reruns.sweep_folders(records, config, wanted, seeds=seeds, folds=folds)
    planned = [reruns.config_of(child) for child in children]
    print(
        f"confirm: {', '.join(wanted)} over {seeds} seeds"
        + f" on each of {folds} folds" * bool(folds)
        + f", {sum(settings.sweep.trials for settings in planned)} runs of {config.train.epochs} "
        "epochs"
    )
    stopped = (
        f"stopped; continue with: python sweeps/pareto.py --resume {in_shell(records.directory)} "
        f"--confirm {seeds}" + f" --folds {folds}" * bool(folds)
    )
    for number, (child, settings) in enumerate(zip(children, planned, strict=True), 1):
        child.lock()
        if folds:
            print(f"fold {number} of {folds}")
        session = driver.run(settings, child, address=address, leave=False)
        child.consolidate()
        if session.interrupted or sum(t.ended for t in child.trials()) < settings.sweep.trials:
            print(stopped)
            return 130 if session.interrupted else 1
        bucket_mirror.mark_done(child)
    try:
        table = _judge(children, planned[0], folds=folds, address=address)
    except (UserError, KeyboardInterrupt):
        print(stopped)
        raise
    if not address:
        machine.leave()
    owner, name = children[0], file_names.CONFIRMED
    if folds:
        owner, name = records, file_names.CROSS_FITTED
    write_atomically(owner.directory / name, lambda path: table.to_parquet(path, index=False))
    bucket_mirror.upload(owner, [name])
    confirmed.write(records.directory)
    return 0


def to_confirm(records: Records) -> dict[str, dict]:
    """The hyperparameters of each configuration to confirm, by its trial's id."""
    from analysis.front import front

    return {
        point.trial_id: dict(point.hyperparameters) for point in front.info(records).highlighted
    }


def _judge(
    children: Sequence[Records], config: Config, *, folds: int | None, address: str | None
) -> pd.DataFrame:
    """A row a configuration, seed and split: trial_id (of the search), seed, split, status, metrics
    and n; over folds also folds, the number of speakers that judge, and the trial's id in a fold
    (rerun).
    """
    trials = [{trial.trial_id: trial for trial in child.trials()} for child in children]
    utterances = pd.concat([child.table() for child in children])
    splits = [split for split in ("dev", "test") if (utterances["split"] == split).any()]
    if "test" not in splits and not folds:
        print(
            "the corpora have no test utterances, so only dev is judged; a sweep that begins with "
            "--set data.test=true keeps a fold of speakers for test"
        )
    tables = _predictions(children, trials, config, splits, address=address)
    rows = []
    for number, name in enumerate(config.sweep.points):
        rerun = order.trial_id(number)
        status = max((known[rerun].status for known in trials), key=WORSE.index)
        first, _, seed = name.partition(" seed ")
        for split in splits:
            row = {"trial_id": first, "seed": int(seed), "split": split, "status": status}
            mine = utterances[utterances["split"] == split]
            if folds:
                speakers = len(mine[["corpus", "speaker"]].drop_duplicates())
                row |= {"folds": folds, "speakers": speakers, "rerun": rerun}
            if status != "failed":
                row |= _scores(tables[rerun, split], split, config)
            rows.append(row)
    return pd.DataFrame(rows)


def _scores(tables: Sequence[pd.DataFrame], split: str, config: Config) -> dict[str, float]:
    """The metrics of the folds' predictions: on dev of all together, on test each fold's mean."""
    judged = [pd.concat(tables)] if split == "dev" else tables
    data = config.data
    scores = [metrics.evaluate(table, labels=data.labels, **data.support) for table in judged]
    names = (*METRICS, "majority_rate")
    means = {name: float(np.mean([score[name] for score in scores])) for name in names}
    return means | {"n": len(judged[0])}


def _predictions(
    children: Sequence[Records],
    trials: Sequence[dict[str, Trial]],
    config: Config,
    splits: Sequence[str],
    *,
    address: str | None,
) -> dict[tuple[str, str], list[pd.DataFrame]]:
    """Predictions of each rerun and split, a table a fold; nothing of one that failed in a fold.

    On dev training's own; on test the saved adapter's, which are kept.
    """
    ended = [name for name in trials[0] if all(known[name].status != "failed" for known in trials)]
    predictions = {
        (name, "dev"): [child.predictions(name) for child in children]
        for name in ended
        if "dev" in splits
    }
    if "test" not in splits:
        return predictions
    requests = {
        (name, "test"): [
            judging.of_adapter(
                child,
                name,
                child.table().query("split == 'test'"),
                child.storage / "predictions" / f"{name}.test.parquet",
                name=name,
            )
            for child in children
        ]
        for name in ended
    }
    answered = judging.answers(
        [request for every in requests.values() for request in every],
        config=config,
        folder=children[0].directory,
        features=children[0].features,
        address=address,
    )
    return predictions | {
        key: [answered[request.kept] for request in every] for key, every in requests.items()
    }
