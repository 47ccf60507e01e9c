"""Rows of `trials.jsonl` as they were written, and the trials that they tell of."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from ermgap.config import old_forms
from ermgap.records.degenerate import COMPLETE

ENDED = (*COMPLETE, "stopped", "failed")
NEEDED = {"trial_id": str, "attempt": int, "epoch": int, "status": str, "config": dict}
NAME = re.compile(r"\w[\w .-]*")  # of a trial: files are called so, and must stay in their folder


@dataclass(frozen=True)
class Trial:
    """One trial as its rows tell it; `selected` is of the epoch chosen by the selection rule.

    `status` is judged anew (ermgap/records/degenerate.py); that of the last row is what held at its
    commit.
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
        """The trial that its rows, one or more in order, tell of; the last one says how it is."""
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


def parsed(content: bytes) -> tuple[list[dict], bool]:
    """The rows of a piece of trials.jsonl in order, and whether any line in it was half-written."""
    rows, torn = [], False
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if _is_row(row):
            row["config"] = old_forms.current_hyperparameters(row["config"])
            rows.append(row)
        else:
            torn = True
    return rows, torn


def _is_row(row) -> bool:
    """Whether a row has what every row has, each of its kind."""
    return (
        isinstance(row, dict)
        and all(type(row.get(name)) is kind for name, kind in NEEDED.items())
        and isinstance(row.get("selected") or {}, dict)
        and NAME.fullmatch(row["trial_id"]) is not None
    )
