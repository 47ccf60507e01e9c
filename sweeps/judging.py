"""What the rows of a benchmark predict: read from where it is kept, or asked for and kept there.

A trained row's predictions are those of its folds' records; were they lost, its adapters answer
again. An asked row's are `systems/NN.parquet`, whole or not at all, so that `--resume` asks
nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ermgap.config import Config
from ermgap.errors import UserError
from ermgap.files import write_atomically
from ermgap.records import Records, Trial
from ermgap.systems import SYSTEMS, Context, parse
from ermgap.systems.answers import FAILED
from sweeps import space
from sweeps.folds import Benchmark
from sweeps.systems import Row, require_asked


def require(asked: Benchmark, judged: pd.DataFrame) -> None:
    """Refuse a row that cannot be asked, and print what asking costs; nothing is written."""
    for number, row in enumerate(asked.rows):
        if not row.trained and not _place(asked, number).exists():
            cost = require_asked(row.spec, _context(asked.config, asked.folder), judged)
            if cost:
                print(cost)


def predictions(asked: Benchmark, judged: pd.DataFrame) -> dict[str, tuple[str, pd.DataFrame]]:
    """Each row's name in the table and its predictions on the judged utterances, by its spec.

    Raises UserError when a system cannot answer, and when none has predictions.
    """
    found: dict[str, tuple[str, pd.DataFrame]] = {}
    for number, row in enumerate(asked.rows):
        if row.trained:
            name, table = row.words, _of_trained(asked, row, judged)
        else:
            name, table = _of_asked(asked, row, judged, number)
        if table is None:
            print(f"{name} has no predictions: its training failed; it is left out of the table")
            continue
        names = [known for known, _ in found.values()]
        found[row.spec] = (f"{name} ({row.spec})" if name in names else name, table)
    if not found:
        raise UserError(f"no system has predictions; look into {asked.folder}/fold-*/trials.jsonl.")
    return found


# Rows that were trained ---------------------------------------------------------------------------


def _of_trained(asked: Benchmark, row: Row, judged: pd.DataFrame) -> pd.DataFrame | None:
    parts = []
    for fold in asked.parts:
        records = Records.open(asked.of(fold))
        trial = _trial(asked, row, records)
        if trial.status == "failed":
            return None
        if asked.split == "dev":
            table = _of_fold(asked, row, records, trial).assign(fold=fold)
            here = judged.loc[judged["fold"] == fold, "utterance_id"]
            parts.append(table[table["utterance_id"].isin(here)])
        else:
            kept = asked.folder / "systems" / f"{row.spec}.parquet"
            parts.append(_by_adapter(asked, row, records, trial, judged, kept))
    return pd.concat(parts, ignore_index=True).drop(columns="system", errors="ignore")


def _trial(asked: Benchmark, row: Row, records: Records) -> Trial:
    """By its id: slots begin several at a time, so the records have them in any order."""
    trial_id = space.trial_id(asked.trained.index(row.spec))
    return next(trial for trial in records.trials() if trial.trial_id == trial_id)


def _of_fold(asked: Benchmark, row: Row, records: Records, trial: Trial) -> pd.DataFrame:
    """What training left on the fold's dev speakers."""
    kept = records.store.fetch(f"predictions/{trial.trial_id}.parquet")
    table = records.table()
    return _by_adapter(asked, row, records, trial, table[table["split"] == "dev"], kept)


def _by_adapter(
    asked: Benchmark, row: Row, records: Records, trial: Trial, utterances: pd.DataFrame, kept: Path
) -> pd.DataFrame:
    spec = f"adapter={records.store.fetch_folder(f'adapters/{trial.trial_id}')}"
    return kept_or_made(
        kept,
        lambda: ask(spec, utterances, config=asked.config, folder=asked.folder, name=row.words),
    )


# Rows that are asked ------------------------------------------------------------------------------


def _of_asked(
    asked: Benchmark, row: Row, judged: pd.DataFrame, number: int
) -> tuple[str, pd.DataFrame]:
    table = kept_or_made(
        _place(asked, number),
        lambda: ask(row.spec, judged, config=asked.config, folder=asked.folder),
    )
    return str(table["system"].iloc[0]), table.drop(columns="system")


def _place(asked: Benchmark, number: int) -> Path:
    """Where the answers of a row that is asked are kept."""
    return asked.folder / "systems" / f"{number:02d}.parquet"


def kept_or_made(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What was answered once is not asked again; requests that failed are, by `--resume`."""
    if path.exists():
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as problem:  # pyarrow's ArrowInvalid is a ValueError
            raise UserError(
                f"{path} cannot be read; remove it, and --resume makes it anew."
            ) from problem
    table = make()
    if failed := int((table["prediction"] == FAILED).sum()):
        print(f"{failed} of {len(table)} answers are missing; --resume asks anew")
        return table
    write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))
    return table


def ask(
    spec: str, judged: pd.DataFrame, *, config: Config, folder: Path, name: str | None = None
) -> pd.DataFrame:
    """Predictions of a system on every judged utterance in every modality that it knows.

    Its name, or `name` instead, is the column `system`; it may keep its answers in `folder`.
    """
    from ermgap.backbone.built import quiet
    from ermgap.examples import in_modalities  # torch: only now

    word, argument = parse(spec)
    modalities = config.data.modalities
    with quiet():
        system = SYSTEMS.find(word)(argument, _context(config, folder))
    system.name = name or system.name
    known = getattr(system, "modalities", modalities)
    answers = [
        system.predict(rows, modality=modality, note=print)
        for modality in modalities
        if modality in known and len(rows := in_modalities(judged, [modality]))
    ]
    if not answers:
        raise UserError(f"{spec} answers {', '.join(known)}, none of which is benchmarked.")
    return pd.concat(answers, ignore_index=True).assign(system=system.name)


def _context(config: Config, folder: Path) -> Context:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Context(config.data.labels, config, device, folder)
