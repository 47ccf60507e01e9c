"""Where the time of a session went: in steps of training and evaluation, or beside them.

Counted in seconds of a slot and divided by the slots, so that the parts add up to the wall time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ermgap.records import append_line, file_names

if TYPE_CHECKING:  # pandas: half a second
    from ermgap.records import Records


FEATURES, READY = "audio features", "ready"  # notes of ermgap/training/context.py
TITLES = {  # of the parts of a session, in the order of printing
    "start": "start-up",
    "features": "audio features",
    "files": "metrics and files",
    "between": "between epochs and trials",
    "idle": "idle slots",
    "close": "closing",
    "dial": "dial",
    "report": "report",
}


@dataclass
class Session:
    """One call of `driver.run`, as the accounting of its time needs it.

    Attributes:
        begun, closed: in s since 1970; `closed` is None where nothing was run.
        rows: number of rows that were committed before it.
        slots: number of worker groups.
        moments: the broker's: (slot, what began there, s since 1970).
        dial: seconds of making the dial, after `closed`.
        interrupted: ended by Ctrl-C; `hurried`: by a second one.
    """

    begun: float = field(default_factory=time.time)
    rows: int = 0
    slots: int = 0
    moments: Sequence[tuple[str, str, float]] = ()
    closed: float | None = None
    dial: float = 0.0
    interrupted: bool = False
    hurried: bool = False


def account(rows: Iterable[Mapping], session: Session, *, now: float) -> dict[str, float]:
    """Seconds of each part (`steps`, and those of TITLES); their sum is `now - session.begun`.

    Args:
        rows: of this session.
        session: as `driver.run` left it.
        now: s since 1970.
    """
    closed = now if session.closed is None else session.closed
    by_slot: dict[str, list[tuple[float, float, float]]] = {}  # end, length, steps of its epochs
    for row in rows:
        seconds = row.get("seconds")
        if seconds is not None and row.get("slot") is not None:  # else an offer, or a failure
            steps = (row.get("train_seconds") or 0.0) + (row.get("eval_seconds") or 0.0)
            epoch = row["time"], seconds, min(steps, seconds)
            by_slot.setdefault(row["slot"], []).append(epoch)
    slots = max(session.slots, len(by_slot), 1)
    parts = dict.fromkeys(("steps", *TITLES), 0.0)
    last = max((epochs[-1][0] for epochs in by_slot.values()), default=closed)
    for slot, epochs in by_slot.items():
        ends, seconds, steps = zip(*epochs, strict=True)
        begin, end, inside, steps = ends[0] - seconds[0], ends[-1], sum(seconds), sum(steps)
        features = _features(slot, session.moments, until=begin)
        parts["features"] += features
        parts["start"] += begin - session.begun - features
        parts["steps"] += steps
        parts["files"] += inside - steps
        parts["between"] += end - begin - inside
        parts["idle"] += last - end
    # A slot that never trained: no trial remained for it, or it never came up.
    parts["idle" if by_slot else "start"] += (slots - len(by_slot)) * (last - session.begun)
    mean = {name: seconds / slots for name, seconds in parts.items()}
    report = now - closed - session.dial
    return mean | {"close": closed - last, "dial": session.dial, "report": report}


def sentence(parts: Mapping[str, float]) -> str:
    """The parts of a session's time in one line: their sum, and each that is not negligible."""
    total = sum(parts.values())
    share = parts["steps"] / total if total > 0 else 0.0
    rest = [f"{span(parts[name])} {title}" for name, title in TITLES.items() if parts[name] >= 0.05]
    head = f"time: {span(total)}, {share:.0%} of it inside training and evaluation steps"
    return f"{head}; the rest: {', '.join(rest)}" if rest else head


def span(seconds: float) -> str:
    """A duration with one or two units, such as 1 h 4 min, 4 min 12 s, 14 s or 1.2 s."""
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
    rows = records.rows()[session.rows :]
    parts = account(rows, session, now=now)
    print(sentence(parts))
    branches = {row["trial_id"]: branch for row in rows if (branch := row.get("branch_from"))}
    if branches:
        saved = sum(branch["epoch"] for branch in branches.values())
        print(f"branches: {len(branches)} trials went on from an ERM trial's; {saved} epochs saved")
    line = {"begun": session.begun, "ended": now, "slots": session.slots, "parts": parts}
    line |= {"interrupted": session.interrupted, "share": parts["steps"] / (now - session.begun)}
    text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    append_line(records.directory / file_names.SESSIONS, text)


def _features(slot: str, moments: Sequence[tuple[str, str, float]], *, until: float) -> float:
    """Seconds between a slot's first note of features and its note that it is ready."""
    notes = [(note, when) for name, note, when in moments if name == slot and when <= until]
    begin = next((when for note, when in notes if note == FEATURES), None)
    end = next((when for note, when in notes if note == READY and when >= (begin or 0)), until)
    return 0.0 if begin is None else end - begin
