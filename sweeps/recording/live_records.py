"""A running sweep in memory, for its front: one small row per trial, updated as rows are committed.

The broker adds each row that it commits; the driver, another process, reads the new rows from the
file. Reading all rows again for each picture took the broker seconds and hundreds of megabytes once
there were tens of thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from ermgap.records import Records, Trial, file_names, judge_trials
from ermgap.records.trial import parse_rows


class LiveRecords(Records):
    """The records that `analysis.front` reads, in memory.

    Args:
        records: the sweep folder.
        trials: those of its rows so far.
    """

    def __init__(self, records: Records, trials: Iterable[Trial] = ()) -> None:
        super().__init__(records.directory, records.sweep)
        self.known = {trial.trial_id: _reduced(trial) for trial in trials}
        self.offset = 0  # bytes of trials.jsonl that `catch_up` has read
        self._speakers: pd.DataFrame | None = None

    def catch_up(self) -> None:
        """Add the whole rows that were appended to trials.jsonl since the last call."""
        path = self.directory / file_names.TRIALS
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(max(self.offset - 1, 0))
            new = file.read()
        if self.offset and new[:1] != b"\n":  # a disk took back a row that it had accepted
            self.offset, self.known = 0, {}
            return self.catch_up()
        new = new[: new.rfind(b"\n") + 1][bool(self.offset) :]  # a half-written line waits
        rows, half_written = parse_rows(new)
        self.offset += len(new)
        self.half_written = self.half_written or half_written
        for row in rows:
            self.add(row)

    def add(self, row: dict) -> None:
        """Add a committed row; it may be the first of its trial."""
        before = self.known.get(row["trial_id"])
        now = Trial.of([*(before.rows if before else ()), row])
        self.known[now.trial_id] = _reduced(now)

    def trials(self) -> list[Trial]:
        """As `Records.trials`; their `rows` hold only what `_reduced` keeps."""
        trials = list(self.known.values())
        return judge_trials(trials, self.rule(trials))

    def table(self) -> pd.DataFrame:
        """Corpus, speaker and split of the utterances."""
        if self._speakers is None:
            self._speakers = super().table()[["corpus", "speaker", "split"]]
        return self._speakers


def _reduced(trial: Trial) -> Trial:
    """The trial with what a point shows of the row of its selected epoch, if there is one yet."""
    rows = [row for row in trial.rows if row["epoch"] == trial.selected.get("epoch")][-1:]
    kept = [{key: row.get(key) for key in ("epoch", "dev", "raised_share")} for row in rows]
    for row in kept:
        row["dev"] = {"worst_cell": (row["dev"] or {}).get("worst_cell")}
    return replace(trial, rows=kept)
