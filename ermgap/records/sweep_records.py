"""The files of one sweep: written while it runs, read by the analysis, the source of truth.

A sweep folder holds `sweep.yaml` (the config, versions and plan), `table.parquet` (the utterances),
`trials.jsonl` (append-only, a row per trial and epoch: the row is the commit), `dial.jsonl` (the
same, a row per position between two adapters), predictions and adapters per trial, `front.parquet`,
`summary.json`, `sessions.jsonl` (where the time of each session went), `optuna.journal` (a copy for
optuna-dashboard), `earlier/` (the sweeps that it was warm-started with), `confirm/` (the front over
seeds, a sweep folder of its own), `confirm-folds/` (the same on speaker folds, a sweep folder
each), and `DONE`, written last. Any machine with pandas reads a sweep.

    records = Records.open("results/demo")
    for trial in records.trials(): print(trial.trial_id, trial.status, trial.selected)
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd
import yaml

from ermgap.config import old_forms, safe_yaml
from ermgap.errors import UserError, first_line, in_shell
from ermgap.records import file_names
from ermgap.records.bucket_mirror import restore
from ermgap.records.dial import parse_dial
from ermgap.records.files import append_line, claim, make_folder, plain, to_json, write_atomically
from ermgap.records.storage import Storage, is_uri
from ermgap.records.trial import DegenerateRule, Trial, judge_trials, parse_rows, with_trunk


class Records:
    """A sweep folder. Only one process may append; any number may read at any time.

    Attributes:
        sweep: the content of sweep.yaml.
        half_written: whether the last reading of the rows met half-written lines.
    """

    def __init__(self, directory: Path, sweep: dict) -> None:
        self.directory = directory
        self.sweep = sweep
        self.half_written = False
        self._frozen: list[dict] | None = None

    @classmethod
    def create(cls, directory: Path | str, *, sweep: Mapping, table: pd.DataFrame) -> Records:
        """Make a folder; raises UserError if it already holds a sweep or cannot be written."""
        directory = Path(directory)
        if (directory / file_names.SWEEP).exists():
            raise UserError(
                f"{directory} already holds a sweep; continue it with --resume "
                f"{in_shell(directory)} or choose another --out."
            )
        try:
            make_folder(directory)
            records = cls(directory, dict(sweep))
            records.write_table(file_names.TABLE, table)
            records.write_sweep(sweep)
        except OSError as problem:
            raise UserError(
                f"the output folder {directory} cannot be written ({problem.strerror or problem}); "
                "choose another with --out."
            ) from problem
        return records

    @classmethod
    def open(cls, directory: Path | str) -> Records:
        """The records of a folder; raises UserError if no sweep wrote it.

        A sweep at a URI is copied to results/NAME first (`restore`).
        """
        directory = restore(str(directory)) if is_uri(directory) else Path(directory)
        path = directory / file_names.SWEEP
        if not path.is_file():
            trouble = "has no sweep.yaml" if directory.is_dir() else "is not a folder"
            raise UserError(
                f"{directory} {trouble}, so it is no sweep; name a folder that a sweep wrote."
            )
        try:
            sweep = safe_yaml.read(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as problem:
            raise UserError(
                f"{path} cannot be read ({first_line(problem)}); restore it."
            ) from problem
        if not isinstance(sweep, dict) or "config" not in sweep:
            raise UserError(f"{path} is not a sweep's description (no 'config' in it); restore it.")
        if isinstance(sweep["config"], dict):
            sweep["config"] = old_forms.current_config(sweep["config"])
        return cls(directory, sweep)

    # Rows ---------------------------------------------------------------------------------------

    def append(self, row: Mapping) -> None:
        """Commit one row: on disk (fsync) when this returns. NaN and infinities become null."""
        self._append(file_names.TRIALS, row)

    def rows(self) -> list[dict]:
        """Every committed row in order, without half-written lines."""
        if self._frozen is not None:
            return self._frozen
        path = self.directory / file_names.TRIALS
        rows, self.half_written = parse_rows(path.read_bytes()) if path.exists() else ([], False)
        return rows

    def append_dial(self, row: Mapping) -> None:
        """Commit the row of a position on a line (ermgap.records.dial), as `append` does."""
        self._append(file_names.DIAL, row)

    def dial(self) -> list[dict]:
        """The rows of the positions on lines between two adapters; empty where none was made."""
        path = self.directory / file_names.DIAL
        return parse_dial(path.read_bytes()) if path.exists() else []

    def freeze(self) -> None:
        """Keep the rows as they are now: a report reads them many times and needs the same ones."""
        self._frozen = self.rows()

    def trials(self) -> list[Trial]:
        """One `Trial` per trial id, in order of appearance.

        A row replaces the same and later epochs that an earlier attempt left. The epochs before a
        branch are its trunk's.
        """
        by_trial: dict[str, list[dict]] = {}
        for row in self.rows():
            before = by_trial.get(row["trial_id"], [])
            earlier = [other for other in before if other["epoch"] < row["epoch"]]
            by_trial[row["trial_id"]] = [*earlier, row]
        trials = [with_trunk(Trial.of(rows), by_trial) for rows in by_trial.values()]
        return judge_trials(trials, self.rule(trials))

    def rule(self, trials: Iterable[Trial]) -> DegenerateRule | None:
        """The rule by which trials are degenerate, given all trials so far.

        None for a sweep without a majority rate: the statuses in its rows are the only ones.
        """
        return DegenerateRule.of(self.sweep, trials)

    # Files --------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the sweep wrote its `DONE` marker."""
        return (self.directory / file_names.DONE).exists()

    @cached_property
    def store(self) -> Storage:
        """The storage of checkpoints, predictions and adapters: `storage` in sweep.yaml, or here.

        Copies of what is in a bucket are kept in this folder.
        """
        return Storage(self.sweep.get("storage") or self.directory, folder=self.directory)

    @property
    def in_bucket(self) -> bool:
        """Whether the storage is a bucket."""
        return is_uri(self.sweep.get("storage") or "")

    @property
    def features(self) -> str | None:
        """The folder in which all sweeps of one storage share their audio features, or None.

        Features are mapped into memory, so with a bucket, or without a storage, each node has its
        own.
        """
        storage = self.sweep.get("storage")
        return None if self.in_bucket or not storage else str(Path(storage).parent)

    @property
    def storage(self) -> Path:
        """The folder of `store`; of a bucket, that of the copies."""
        return self.store.folder

    def table(self) -> pd.DataFrame:
        """The utterances of the sweep (ermgap.corpora.table); UserError if damaged."""
        path = self.directory / file_names.TABLE
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as problem:  # pyarrow's ArrowInvalid is a ValueError
            raise UserError(
                f"{path} cannot be read ({first_line(problem)}); restore it, or start a new sweep."
            ) from problem

    def predictions(self, trial_id: str) -> pd.DataFrame | None:
        """Predictions per utterance of the trial's selected epoch, or None if there are none."""
        name = f"predictions/{trial_id}.parquet"
        path = self.store.fetch(name)
        if not path.exists():  # copied from a cluster whose storage is not mounted here
            path = self.directory / name
        return pd.read_parquet(path) if path.exists() else None

    def write_sweep(self, sweep: Mapping) -> None:
        """Replace sweep.yaml; `--resume` with more trials changes `trials` only."""
        self.sweep = dict(sweep)
        self.__dict__.pop("store", None)
        text = yaml.safe_dump(plain(self.sweep), sort_keys=False, allow_unicode=True)
        self.write_text(file_names.SWEEP, text)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Replace a file of the folder by a table (Parquet)."""
        write_atomically(self.directory / name, lambda path: table.to_parquet(path, index=False))

    def write_text(self, name: str, text: str) -> None:
        """Replace a file of the folder by a text (UTF-8)."""
        write_atomically(self.directory / name, lambda path: path.write_text(text, "utf-8"))

    def lock(self) -> None:
        """Lock the folder while this object lives; UserError if another process has it."""
        handle = os.open(self.directory, os.O_RDONLY)
        if not claim(handle):
            os.close(handle)
            raise UserError(
                f"another process is running the sweep in {self.directory}; wait until it ends, "
                "or choose another --out."
            )
        weakref.finalize(self, os.close, handle)

    def consolidate(self) -> None:
        """Write trials.parquet: the rows of trials.jsonl as one flat table."""
        rows = [
            row
            for trial in self.trials()
            for row in trial.rows
            if row["trial_id"] == trial.trial_id
        ]
        if rows:
            flat = pd.json_normalize(rows, sep=".").convert_dtypes(dtype_backend="pyarrow")
            mixed = [name for name in flat if flat[name].dtype == object]
            flat[mixed] = flat[mixed].astype(str)
            self.write_table(file_names.FLAT_TRIALS, flat)

    def with_checkpoints(self) -> set[str]:
        """Ids of the trials whose checkpoints are in the storage."""
        return {name.split("/")[0] for name in self.store.names("checkpoints", recursive=True)}

    def forget_checkpoints(self, trial_id: str) -> None:
        """Remove the checkpoints of a trial that has ended."""
        self.store.remove(f"checkpoints/{trial_id}")

    def mark_done(self) -> None:
        """Write `DONE`, after everything else of the sweep."""
        self.write_text(file_names.DONE, "")

    def clear_done(self) -> None:
        """Remove `DONE`: the sweep gets more trials."""
        (self.directory / file_names.DONE).unlink(missing_ok=True)

    def _append(self, name: str, row: Mapping) -> None:
        line = to_json(row, separators=(",", ":")).encode() + b"\n"
        append_line(self.directory / name, line)
