"""Where the time of a session went: in steps of training and evaluation, or beside them.

Counted in seconds of a slot and divided by the slots, so that the parts add up to the wall time.
The members of a gang are trained in the same passes: their rows carry the same seconds, which count
once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ermgap.records import append_line

if TYPE_CHECKING:  # pandas: half a second
    from ermgap.records import Records


FEATURES, READY = "audio features", "ready"  # notes of ermgap/training/context.py
WORDS = {  # part -> as a person reads it, in the order of printing
    "start": "start-up",
    "features": "audio features",
    "files": "metrics and files",
    "between": "between epochs and trials",
    "idle": "idle slots",
    "close": "closing",
    "report": "report",
}


@dataclass
class Epoch:
    """One pass of a slot over train and dev, for one configuration or for a gang; times in s."""

    end: float  # since 1970
    seconds: float
    steps: float  # of `seconds`, inside steps of training and evaluation
    number: int
    members: set[str]
    size: int

    @property
    def begin(self) -> float:
        """When it began, s since 1970."""
        return self.end - self.seconds


@dataclass
class Session:
    """What a call of `driver.run` did: `interrupted` by Ctrl-C (`hurried`: a second one), or ended.

    `begun` and `closed` are seconds since 1970; `rows` had been committed before it; `moments` are
    the broker's: (slot, what began there, when).
    """

    begun: float = field(default_factory=time.time)
    rows: int = 0
    slots: int = 0
    moments: Sequence[tuple[str, str, float]] = ()
    closed: float | None = None
    interrupted: bool = False
    hurried: bool = False


def epochs(rows: Iterable[Mapping]) -> dict[str, list[Epoch]]:
    """The epochs of each slot, in the order of their rows; a gang's rows make one."""
    found: dict[str, list[Epoch]] = {}
    for row in rows:
        if row.get("seconds") is None or row.get("slot") is None:
            continue  # an offer, or a failure
        steps = (row.get("train_seconds") or 0.0) + (row.get("eval_seconds") or 0.0)
        one = Epoch(
            end=row["time"],
            seconds=row["seconds"],
            steps=min(steps, row["seconds"]),
            number=row["epoch"],
            members={row["trial_id"]},
            size=row.get("gang") or 1,
        )
        before = found.setdefault(row["slot"], [])
        if before and _same(before[-1], one):
            last = before[-1]
            last.members |= one.members
            last.seconds = max(last.end, one.end) - min(last.begin, one.begin)
            last.end, last.steps = max(last.end, one.end), max(last.steps, one.steps)
        else:
            before.append(one)
    return found


def account(rows: Iterable[Mapping], session: Session, *, now: float) -> dict[str, float]:
    """Seconds of each part (`steps`, and those of WORDS); their sum is `now - session.begun`.

    Args:
        rows: of this session.
        session: as `driver.run` left it.
        now: s since 1970.
    """
    closed = now if session.closed is None else session.closed
    found = epochs(rows)
    slots = max(session.slots, len(found), 1)
    parts = dict.fromkeys(("steps", *WORDS), 0.0)
    last = max((slot[-1].end for slot in found.values()), default=closed)
    for slot, trained in found.items():
        begin, end = trained[0].begin, trained[-1].end
        features = _features(slot, session.moments, until=begin)
        inside = sum(epoch.seconds for epoch in trained)
        steps = sum(epoch.steps for epoch in trained)
        parts["features"] += features
        parts["start"] += begin - session.begun - features
        parts["steps"] += steps
        parts["files"] += inside - steps
        parts["between"] += end - begin - inside
        parts["idle"] += last - end
    # A slot that never trained: nothing was left for it, or it never came up.
    parts["idle" if found else "start"] += (slots - len(found)) * (last - session.begun)
    mean = {name: seconds / slots for name, seconds in parts.items()}
    return mean | {"close": closed - last, "report": now - closed}


def words(parts: Mapping[str, float]) -> str:
    """One line for a person."""
    total = sum(parts.values())
    share = parts["steps"] / total if total > 0 else 0.0
    rest = [f"{span(parts[name])} {word}" for name, word in WORDS.items() if parts[name] >= 0.05]
    head = f"time: {span(total)}, {share:.0%} of it inside training and evaluation steps"
    return f"{head}; the rest: {', '.join(rest)}" if rest else head


def span(seconds: float) -> str:
    """4 min 12 s, 14 s, 1.2 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def tell(records: Records, session: Session) -> None:
    """Print where the time of this session went, and add it to the folder's `sessions.jsonl`."""
    if session.closed is None:
        return
    now = time.time()
    parts = account(records.rows()[session.rows :], session, now=now)
    print(words(parts))
    line = {"begun": session.begun, "ended": now, "slots": session.slots, "parts": parts}
    line |= {"interrupted": session.interrupted, "share": parts["steps"] / (now - session.begun)}
    text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    append_line(records.directory / "sessions.jsonl", text)


def _same(before: Epoch, one: Epoch) -> bool:
    """Whether a row tells of the pass that the one before it told of."""
    return (
        one.size > 1
        and (before.size, before.number) == (one.size, one.number)
        and len(before.members) < one.size
        and not before.members & one.members
        and one.begin < before.end
    )


def _features(slot: str, moments: Sequence[tuple[str, str, float]], *, until: float) -> float:
    """Seconds between the first word of features and that the slot's worker is ready."""
    mine = [(word, when) for name, word, when in moments if name == slot and when <= until]
    begin = next((when for word, when in mine if word == FEATURES), None)
    end = next((when for word, when in mine if word == READY and when >= (begin or 0)), until)
    return 0.0 if begin is None else end - begin
