"""A running sweep as its front needs it: one small row a trial, kept as rows are committed.

To read the rows anew for each picture took seconds and hundreds of megabytes in the broker once
there were tens of thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ermgap.degenerate import judged
from ermgap.records import Records, Trial


class Seen(Records):
    """What `analysis.front` reads of a sweep folder, from memory.

    Args:
        records: the sweep folder.
        trials: those of its rows so far.
    """

    def __init__(self, records: Records, trials: Iterable[Trial] = ()) -> None:
        super().__init__(records.directory, records.sweep)
        self.known = {
            trial.trial_id: replace(trial, rows=_selected(trial.selected, trial.rows))
            for trial in trials
        }

    def note(self, row: dict) -> None:
        """A row was committed; it may be the first of its trial."""
        before = self.known.get(row["trial_id"])
        now = Trial.of([*(before.rows if before else ()), row])
        self.known[now.trial_id] = replace(now, rows=_selected(now.selected, now.rows))

    def trials(self) -> list[Trial]:
        """As `Records.trials`; of the rows only what `_selected` keeps."""
        trials = list(self.known.values())
        return judged(trials, self.rule(trials))


def _selected(selected: dict, rows: list[dict]) -> list[dict]:
    """The row of the selected epoch, with its worst cell alone."""
    return [
        {"epoch": row["epoch"], "dev": {"worst_cell": (row.get("dev") or {}).get("worst_cell")}}
        for row in rows
        if row["epoch"] == selected.get("epoch")
    ][-1:]
