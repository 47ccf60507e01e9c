"""The predictions of a benchmark's rows: read from their files, or asked for and written to them.

A trained row's predictions are those of its folds' records; on test, or if they are lost, its
adapters are asked. A row that is asked has `systems/NN.parquet`, whole or not at all, so that
`--resume` asks nothing twice. Models answer on the workers (evaluation.py); an endpoint is asked
from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ermgap import baselines as systems
from ermgap.baselines import Context
from ermgap.baselines.answers import FAILED
from ermgap.config import Config
from ermgap.errors import UserError
from ermgap.records import Records, Trial, is_uri, write_atomically
from sweeps.scheduler import evaluation, evaluator
from sweeps.scheduler.evaluation import Request
from sweeps.scoring.folds import Benchmark
from sweeps.scoring.systems import Row, require_asked
from sweeps.search import order


def require(benchmark: Benchmark, judged: pd.DataFrame) -> None:
    """Print what asking costs; UserError for a row that cannot be asked. Nothing is written."""
    for number, row in enumerate(benchmark.rows):
        if not row.trained and not _kept(benchmark, number).exists():
            cost = require_asked(row.spec, _context(benchmark.config, benchmark.folder), judged)
            if cost:
                print(cost)


def on_workers(benchmark: Benchmark) -> bool:
    """Whether a row that is not trained is still to be asked on the workers."""
    return any(
        not row.trained
        and not _kept(benchmark, number).exists()
        and not systems.on_driver(row.spec)
        for number, row in enumerate(benchmark.rows)
    )


def predictions(
    benchmark: Benchmark, judged: pd.DataFrame, *, address: str | None
) -> dict[str, tuple[str, pd.DataFrame]]:
    """Each row's name in the table and its predictions on the judged utterances, by its spec.

    `address` is of a running Ray cluster, for what is asked on the workers. Raises UserError when a
    system cannot answer, and when none has predictions.
    """
    wanted = {
        row.spec: _of_trained(benchmark, row, judged)
        if row.trained
        else [Request(row.spec, judged, _kept(benchmark, number))]
        for number, row in enumerate(benchmark.rows)
    }
    answered = answers(
        [request for requests in wanted.values() for request in requests],
        config=benchmark.config,
        folder=benchmark.folder,
        features=None if is_uri(benchmark.storage or "") else benchmark.storage,
        address=address,
    )
    predicted: dict[str, tuple[str, pd.DataFrame]] = {}
    for row in benchmark.rows:
        tables = [answered[request.kept] for request in wanted[row.spec]]
        if not tables:
            print(f"{row.title} has no predictions: its training failed; it is not in the table")
            continue
        name = row.title or str(tables[0]["system"].iloc[0])
        if row.trained and benchmark.split == "dev":
            tables = [
                _held_out(table, judged, fold)
                for table, fold in zip(tables, benchmark.fold_numbers, strict=True)
            ]
        table = pd.concat(tables, ignore_index=True).drop(columns="system", errors="ignore")
        titles = [title for title, _ in predicted.values()]
        predicted[row.spec] = (f"{name} ({row.spec})" if name in titles else name, table)
    if not predicted:
        raise UserError(
            f"no system has predictions; look into {benchmark.folder}/fold-*/trials.jsonl."
        )
    return predicted


def answers(
    requests: Sequence[Request],
    *,
    config: Config,
    folder: Path,
    features: str | None,
    address: str | None,
) -> dict[Path, pd.DataFrame]:
    """The predictions of every request, by its file: those kept are read, the others asked for.

    What was answered once is not asked again; requests that failed are, by `--resume`.

    Args:
        config: of the run.
        folder: of the results; a system may keep its answers there.
        features, address: see `evaluation.on_workers`.
    """
    answered = {r.kept: _read(r.kept) for r in requests if r.kept.exists()}
    missing = [request for request in requests if request.kept not in answered]

    def done(request: Request, table: pd.DataFrame) -> None:
        answered[request.kept] = table
        if failed := int((table["prediction"] == FAILED).sum()):
            print(f"{failed} of {len(table)} answers are missing; --resume asks anew")
            return
        try:
            write_atomically(request.kept, lambda path: table.to_parquet(path, index=False))
        except OSError as problem:
            raise UserError(
                f"{request.kept} cannot be written ({problem.strerror or problem}); make room "
                "there, and continue with --resume."
            ) from problem

    if models := [request for request in missing if not systems.on_driver(request.spec)]:
        evaluation.on_workers(
            models, config=config, features=features, address=address, folder=folder, done=done
        )
    context = _context(config, folder)
    for request in missing:
        if systems.on_driver(request.spec):
            table = evaluator.ask(
                request.spec, request.utterances, context=context, name=request.name, note=print
            )
            done(request, table)
    return answered


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as problem:  # pyarrow's ArrowInvalid is a ValueError
        raise UserError(
            f"{path} cannot be read; remove it, and --resume makes it anew."
        ) from problem


def _context(config: Config, folder: Path) -> Context:
    """The context of systems that are asked from here, and have no model here."""
    return Context(config.data.labels, config, "cpu", folder)


# Rows that were trained ---------------------------------------------------------------------------


def _of_trained(benchmark: Benchmark, row: Row, judged: pd.DataFrame) -> list[Request]:
    """A request a fold, on dev kept by training; none where the training of one failed."""
    requests = []
    for fold in benchmark.fold_numbers:
        records = Records.open(benchmark.folder_of(fold))
        trial = _trial(benchmark, row, records)
        if trial.status == "failed":
            return []
        utterances, kept = judged, benchmark.folder / "systems" / f"{row.spec}.parquet"
        if benchmark.split == "dev":
            table = records.table()
            utterances = table[table["split"] == "dev"]
            kept = records.store.fetch(f"predictions/{trial.trial_id}.parquet")
        requests.append(of_adapter(records, trial.trial_id, utterances, kept, name=row.title))
    return requests


def of_adapter(
    records: Records, trial_id: str, utterances: pd.DataFrame, kept: Path, *, name: str
) -> Request:
    """A request to the adapter that a trial saved."""
    folder = "" if kept.exists() else records.store.fetch_folder(f"adapters/{trial_id}")
    return Request(f"adapter={folder}", utterances, kept, name)


def _trial(benchmark: Benchmark, row: Row, records: Records) -> Trial:
    """The trial of a row in a fold's records, which have trials in any order."""
    trial_id = order.trial_id(benchmark.trained.index(row.spec))
    return next(trial for trial in records.trials() if trial.trial_id == trial_id)


def _held_out(table: pd.DataFrame, judged: pd.DataFrame, fold: int) -> pd.DataFrame:
    """The predictions of a fold on the utterances for which it counts."""
    here = judged.loc[judged["fold"] == fold, "utterance_id"]
    return table[table["utterance_id"].isin(here)].assign(fold=fold)


def _kept(benchmark: Benchmark, number: int) -> Path:
    """The file with the answers of a row that is asked."""
    return benchmark.folder / "systems" / f"{number:02d}.parquet"
