"""The rows of `trials.jsonl` as they are read, and the trials that they belong to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ermgap.config import old_forms
from ermgap.records.degenerate import COMPLETE
from ermgap.records.files import json_lines

ENDED = (*COMPLETE, "stopped", "failed")
NEEDED = {"trial_id": str, "attempt": int, "epoch": int, "status": str, "config": dict}
NAME = re.compile(r"\w[\w .-]*")  # of a trial: names of files contain it, so it must be no path


@dataclass(frozen=True)
class Trial:
    """One trial, from its rows; `selected` holds the dev scores of the selected epoch.

    `status` is that of the last row until `degenerate.judge_trials` gives it the current one.
    """

    trial_id: str
    status: str
    reason: str | None
    hyperparameters: dict
    epoch: int
    attempt: int
    selected: dict
    rows: list[dict] = field(repr=False)

    @classmethod
    def of(cls, rows: list[dict]) -> Trial:
        """The trial of one or more rows in order; all but `rows` is from the last one."""
        last = rows[-1]
        return cls(
            trial_id=last["trial_id"],
            status=last["status"],
            reason=last.get("reason"),
            hyperparameters=last["config"],
            epoch=last["epoch"],
            attempt=last["attempt"],
            selected=last.get("selected") or {},
            rows=rows,
        )

    @property
    def ended(self) -> bool:
        """Whether the trial has a final status (finished, stopped, failed or degenerate)."""
        return self.status in ENDED


def parse_rows(content: bytes) -> tuple[list[dict], bool]:
    """The rows in a piece of trials.jsonl, in order, and whether any line was half-written."""
    rows, half_written = [], False
    for row in json_lines(content):
        if _is_row(row):
            row["config"] = old_forms.current_hyperparameters(row["config"])
            rows.append(row)
        else:
            half_written = True
    return rows, half_written


def _is_row(row) -> bool:
    """Whether a JSON value is a row: all NEEDED keys with values of their types."""
    return (
        isinstance(row, dict)
        and all(type(row.get(name)) is kind for name, kind in NEEDED.items())
        and isinstance(row.get("selected") or {}, dict)
        and NAME.fullmatch(row["trial_id"]) is not None
    )
