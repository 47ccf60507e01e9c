"""The folds of a benchmark: what each trains, where its records lie, what it holds out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ermgap.config import Config
from ermgap.records import Records, bucket_mirror, file_names
from sweeps.scoring.systems import Row
from sweeps.setup import cells, folders
from sweeps.setup import plan as planning


@dataclasses.dataclass
class Benchmark:
    """A benchmark that a command line or the sweep.yaml of its folder describes.

    Attributes:
        config: of the run; every fold's is made of it.
        rows: of the table, in its order.
        split: dev or test, on which they are judged.
        folds: how many speaker folds are run; None: the one that the configuration names.
        baseline: spec of the row that others are compared with.
        folder: of the results.
        storage: `--storage`, made absolute.
    """

    config: Config
    rows: list[Row]
    split: str
    folds: int | None
    baseline: str | None
    folder: Path
    storage: str | None = None

    @property
    def trained(self) -> list[str]:
        """Names of the rows that are trained; the k-th is the trial `t000k` of each fold."""
        return [row.spec for row in self.rows if row.trained]

    @property
    def fold_numbers(self) -> list[int]:
        """The folds that are run."""
        return list(range(self.folds)) if self.folds else [self.config.data.fold]

    @property
    def untrained(self) -> list[int]:
        """The folds that have rows to train and are not done."""
        return [
            fold
            for fold in self.fold_numbers
            if self.trained and not (self.folder_of(fold) / file_names.DONE).exists()
        ]

    def folder_of(self, fold: int) -> Path:
        """The folder of one fold's records."""
        return self.folder / f"fold-{fold}"

    def config_of(self, fold: int) -> Config:
        """The configuration of one fold: its speakers held out, every trained row a point."""
        points = {row.spec: row.hyperparameters for row in self.rows if row.trained}
        changes: dict = {"sweep.points": points, "sweep.trials": max(len(points), 1)}
        if self.folds:
            changes |= {"data.folds": self.folds, "data.fold": fold, "train.select": "last"}
        return self.config.replace(changes)


def judged_of(benchmark: Benchmark, plans: Mapping[int, planning.Plan]) -> pd.DataFrame:
    """The utterances that systems are judged on, with the `fold` in which they are held out.

    A side with fewer speakers than there are folds is held out more than once: the first counts.
    """
    parts = [
        plan.utterances[plan.utterances["split"] == benchmark.split].assign(fold=fold)
        for fold, plan in plans.items()
    ]
    return pd.concat(parts, ignore_index=True).drop_duplicates("utterance_id", ignore_index=True)


def train(benchmark: Benchmark, plans: Mapping[int, planning.Plan], *, address: str | None) -> int:
    """Train every row on every untrained fold; returns the exit status, 0 if all trials ended.

    A Ray that was started here stays, since rows are asked next.
    """
    from sweeps.scheduler import driver

    untrained = benchmark.untrained
    for fold in untrained:
        cells.require_a_cell(benchmark.config_of(fold), plans[fold].utterances)
    for fold in untrained:
        config = benchmark.config_of(fold)
        records = _records(benchmark, fold, config, plans[fold])
        records.lock()
        if benchmark.folds:
            print(f"fold {fold + 1} of {benchmark.folds}")
        session = driver.run(config, records, address=address, leave=False)
        records.consolidate()
        ended = sum(trial.ended for trial in records.trials())
        if session.interrupted or ended < config.sweep.trials:
            return 130 if session.interrupted else 1
        bucket_mirror.mark_done(records)
    return 0


def _records(benchmark: Benchmark, fold: int, config: Config, plan: planning.Plan) -> Records:
    folder, storage = benchmark.folder_of(fold), None
    if (folder / file_names.SWEEP).exists():
        return Records.open(folder)
    if benchmark.storage:  # beside each other there, so that all folds share the features
        storage = f"{benchmark.storage}/{benchmark.folder.absolute().name}-fold-{fold}"
        folders.make_storage(storage, folder)
    sweep = planning.describe_sweep(
        config,
        preset="benchmark",
        utterances=plan.utterances,
        storage=storage,
        provenance=plan.provenance,
    )
    return Records.create(folder, sweep={"kind": "benchmark"} | sweep, table=plan.utterances)
