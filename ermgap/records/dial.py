"""The rows of `dial.jsonl`: positions on the lines between two trials' adapters, and their scores.

A line joins the adapters of a `lower` trial (position 0: the trunk, or ERM) and an `upper` one
(position 1: the branch, or a fair trial); what lies between is made in `ermgap.adapters.dial`. A
row is the commit of one position, as one of trials.jsonl is of an epoch:

    {"id": "t0000-t0007@0.7", "lower": "t0000", "upper": "t0007", "position": 0.7,
     "dev": {...}, "seconds": 0.8, "time": 1.7e9}

Its predictions are those of `Records.predictions(id)`.
"""

from __future__ import annotations

import re

from ermgap.records.files import json_lines
from ermgap.records.trial import NAME

POSITIONS = tuple(tenth / 10 for tenth in range(16))  # of a line, unless others are asked for
_ID = re.compile(r"([^@]+)-([^-@]+)@(\d+(?:\.\d+)?)")


def dial_id(lower: str, upper: str, position: float) -> str:
    """The name of a position, as rows and files of predictions have it: `t0000-t0007@0.7`."""
    return f"{lower}-{upper}@{position:g}"


def parse_id(name: str) -> tuple[str, str, float] | None:
    """The lower and the upper trial's ids and the position of a `dial_id`; None for another id."""
    match = _ID.fullmatch(name)
    return (match[1], match[2], float(match[3])) if match else None


def parse_dial(content: bytes) -> list[dict]:
    """The rows in a dial.jsonl in order, the newest for each id; half-written lines are omitted."""
    return list({row["id"]: row for row in json_lines(content) if _is_row(row)}.values())


def _is_row(row) -> bool:
    """Whether a JSON value is a row; names of files contain the id, so it must be no path."""
    if not isinstance(row, dict) or not isinstance(row.get("dev"), dict):
        return False
    ends = [row.get("lower"), row.get("upper")]
    if not all(isinstance(end, str) and NAME.fullmatch(end) for end in ends):
        return False
    position = row.get("position")
    return isinstance(position, (int, float)) and row.get("id") == dial_id(*ends, position)
