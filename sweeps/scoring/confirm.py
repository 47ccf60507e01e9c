"""Confirm a sweep: its front (the knee is of it) and its ERM again over seeds, on dev and on test.

    python sweeps/pareto.py --resume results/small --confirm 5
    python sweeps/pareto.py --resume results/small --confirm 5 --folds 5

A point is on the front because its dev values were good, so part of them is luck. Here each
configuration of them is trained anew with seeds that the search did not use, and judged on dev and
on test: the only place of a sweep that touches test. With `--folds K` it is trained K times a seed,
each time without a K-th of the speakers of train and dev, who then judge it: all K parts together
are one judgement by every speaker, none of whom the model had heard. The last epoch counts there,
since choosing one on those who judge would flatter; test gets the mean of the K models' scores.
For a position of the dial on the front both ends are trained, and the same position between them is
judged.

The reruns lie in sweep folders of their own over named points (reruns.py), which the same flags go
on with, or extend to more seeds. Writes confirmed.parquet (a row a configuration, seed and split),
and the analysis draws confirm.png and writes confirm.csv (analysis/confirmed.py).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ermgap.config import Config
from ermgap.errors import UserError, in_shell
from ermgap.records import Records, bucket_mirror, file_names, parse_id, write_atomically
from sweeps.scheduler.machines import machine
from sweeps.scoring import rerun_scores, reruns


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

    wanted, positions = to_confirm(records)
    if not wanted:
        print("nothing to confirm: no trial is on the front and none is ERM")
        return 0
    children = reruns.sweep_folders(records, config, wanted, seeds=seeds, folds=folds)
    planned = [reruns.config_of(child) for child in children]
    print(
        f"confirm: {', '.join([*wanted, *positions])} over {seeds} seeds"
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
        for child, settings in zip(children, planned, strict=True):
            rerun_scores.make_dial(child, settings, positions, address=address)
        table = rerun_scores.judge(children, planned[0], positions, folds=folds, address=address)
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


def to_confirm(records: Records) -> tuple[dict[str, dict], tuple[str, ...]]:
    """The hyperparameters of each trial to train anew, by its id, and the positions of the dial.

    Both are what is on the front, and ERM; a position needs both of its ends.
    """
    from analysis.front import front
    from analysis.statistics import dial

    info = dial.read(front.info(records), records).info
    positions = tuple(point.trial_id for point in info.highlighted if point.dial)
    ends = [end for name in positions for end in parse_id(name)[:2]]
    trials = [point.trial_id for point in info.highlighted if not point.dial]
    wanted = dict.fromkeys([*trials, *ends])
    return {name: dict(info.find(name).hyperparameters) for name in wanted}, positions
