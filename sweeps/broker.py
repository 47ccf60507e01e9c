"""Who trains what: between Tune's trials and the slots, and the only writer of the records.

A Tune trial offers a configuration and waits for its outcome; a slot takes one, reports every
epoch and is told whether to go on. The row is the commit: it is appended (fsync) before the slot
hears the answer. A slot that takes while it still holds a configuration has lost its worker group:
the configuration is handed out again from its last committed epoch, and counted as one more
attempt.

The class is plain asyncio and is tested without Ray; `slots.py` makes an actor of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from ermgap import config, metrics
from ermgap.errors import UserError
from ermgap.records import Records
from sweeps import space
from sweeps.events import Events

STARTS = 4  # of a slot in a row without a committed epoch: something is wrong that no retry mends


@dataclass
class Entry:
    """A configuration between its offer and its outcome."""

    trial_id: str
    chosen: dict
    attempt: int = 0
    epoch: int = 0
    slot: str | None = None
    selected: dict = field(default_factory=dict)
    trouble: str | None = None
    offered: float = field(default_factory=time.time)


class Broker:
    """One sweep's broker.

    Args:
        directory: the sweep folder; its records say what is already committed.
    """

    def __init__(self, directory: str) -> None:
        self.records = Records.open(directory)
        self.config = config.from_dict(self.records.sweep["config"])
        self.events = Events(self.records)
        self.entries: dict[str, Entry] = {}
        self.queue: deque[str] = deque()
        self.held: dict[str, str] = {}  # slot -> trial id
        self.outcomes: dict[str, dict] = {}
        self.starts: dict[str, int] = {}
        self.asks: dict[str, int] = {}  # of each slot; only the youngest may be given a job
        self.notes: dict[str, str] = {}
        self.closing = self.interrupted = False
        self.fatal: str | None = None
        self.changed = asyncio.Condition()
        self.committed = {trial.trial_id: trial for trial in self.records.trials()}
        self.erm_best = max(
            (
                t.selected.get("w_f1") or 0.0
                for t in self.committed.values()
                if t.config.get("loss") == "erm"
            ),
            default=0.0,
        )

    # For Tune's trials --------------------------------------------------------------------------

    async def offer(self, trial_id: str, chosen: dict) -> None:
        """Queue a configuration; one that is committed in part goes on from its last epoch.

        One that the configuration refuses ends as failed; a second offer of the same is ignored.
        """
        if trial_id in self.entries:
            return
        known = self.committed.get(trial_id)
        entry = Entry(trial_id, chosen)
        if known is None:
            self.records.append(self._row(entry, "running", None))
        else:
            entry.epoch, entry.selected = known.epoch, known.selected
            entry.attempt = known.attempt - 1 if known.epoch else 0
        self.entries[trial_id] = entry
        try:
            space.apply(chosen, self.config)
        except UserError as mistake:
            await self._fail(entry, str(mistake))
            return
        self.queue.append(trial_id)
        await self._tell()

    async def outcome(self, trial_id: str, timeout: float) -> dict | None:
        """The outcome (`status`, `reason`, selected metrics), or None after `timeout` seconds."""
        await self._until(lambda: trial_id in self.outcomes or self._left(trial_id), timeout)
        if trial_id in self.outcomes:
            return self.outcomes[trial_id]
        return {"status": "interrupted"} if self._left(trial_id) else None

    # For slots ----------------------------------------------------------------------------------

    async def material(self, slot: str) -> dict:
        """What a slot's workers need to prepare themselves; asking counts as a start."""
        self.starts[slot] = self.starts.get(slot, 0) + 1
        if self.starts[slot] > STARTS * self.config.sweep.workers:
            await self.give_up(
                f"the worker group {slot} died {STARTS} times before it finished an epoch "
                f"({self._last_trouble()}); look into its logs and continue with --resume."
            )
        return {
            "config": self.records.sweep["config"],
            "table": self.records.table(),
            "storage": str(self.records.storage.absolute()),
        }

    async def take(self, slot: str, timeout: float) -> dict:
        """The next configuration for a slot: `kind` is job, wait (ask again) or close."""
        ask = self.asks[slot] = self.asks.get(slot, 0) + 1
        await self._return_to_queue(slot)
        # A group that died while it waited is still in here: what it is given would be lost.
        await self._until(lambda: self.queue or self._stopped(), timeout)
        if self._stopped():
            return {"kind": "close"}
        if not self.queue or self.asks[slot] != ask:
            return {"kind": "wait"}
        entry = self.entries[self.queue.popleft()]
        entry.slot, entry.attempt, entry.trouble = slot, entry.attempt + 1, None
        self.held[slot] = entry.trial_id
        return {
            "kind": "job",
            "trial_id": entry.trial_id,
            "attempt": entry.attempt,
            "epoch": entry.epoch,
            "chosen": entry.chosen,
            "config": space.apply(entry.chosen, self.config).to_dict(),
        }

    async def left(self, slot: str) -> None:
        """A slot has ended for good: another one takes what it held."""
        await self._return_to_queue(slot)

    async def report(self, slot: str, row: dict) -> bool:
        """Commit an epoch's row; whether the slot shall go on with this configuration."""
        entry = self._current(slot, row["trial_id"], row["attempt"])
        if entry is None:
            return False
        status = self._status(row)
        last = row["last"]
        row = {key: value for key, value in row.items() if key != "last"} | {
            "status": status,
            "reason": None,
            "slot": slot,
        }
        self.records.append(row)
        self.starts[slot] = 0
        entry.epoch, entry.selected = row["epoch"], row["selected"]
        if entry.chosen.get("loss") == "erm":
            self.erm_best = max(self.erm_best, entry.selected["w_f1"])
        self.events.epoch(row)
        if last:
            await self._end(entry, status, None)
        elif self._stopped():
            self._let_go(entry)
            await self._tell()
        return not last and not self._stopped()

    async def failed(self, slot: str, trial_id: str, attempt: int, reason: str) -> None:
        """All ranks of a slot agree that a configuration cannot go on."""
        entry = self._current(slot, trial_id, attempt)
        if entry is not None:
            await self._fail(entry, reason)

    async def trouble(self, slot: str, trial_id: str, text: str) -> None:
        """Word of an exception that is about to take the slot's group down.

        The first of an attempt counts: other ranks then only see their peer go.
        """
        if self.held.get(slot) == trial_id:
            entry = self.entries[trial_id]
            entry.trouble = entry.trouble or text

    async def note(self, slot: str, text: str) -> None:
        """A line for the live progress."""
        self.notes[slot] = text

    # For the driver -----------------------------------------------------------------------------

    async def status(self) -> dict:
        """What the live progress shows."""
        running = [e for e in self.entries.values() if e.slot is not None]
        return {
            "running": {e.trial_id: e.epoch for e in running},
            "queued": list(self.queue),
            "ended": {name: outcome["status"] for name, outcome in self.outcomes.items()},
            "reasons": {name: o["reason"] for name, o in self.outcomes.items() if o.get("reason")},
            "notes": dict(self.notes),
            "fatal": self.fatal,
        }

    async def give_up(self, sentence: str) -> None:
        """End the sweep: `sentence` tells the user why."""
        self.fatal = self.fatal or sentence
        await self._tell()

    async def interrupt(self) -> None:
        """End after the epochs in flight; unfinished configurations stay unfinished."""
        self.interrupted = True
        await self._tell()

    async def close(self) -> None:
        """The sweep is over: slots that ask are told to close."""
        self.closing = True
        self.events.close()
        await self._tell()

    # Inside -------------------------------------------------------------------------------------

    def _stopped(self) -> bool:
        return self.closing or self.interrupted or self.fatal is not None

    def _left(self, trial_id: str) -> bool:
        """Whether the sweep stops and no slot will end this configuration any more."""
        entry = self.entries.get(trial_id)
        training = entry is not None and entry.slot is not None and self.fatal is None
        return self._stopped() and not training

    def _current(self, slot: str, trial_id: str, attempt: int) -> Entry | None:
        entry = self.entries.get(trial_id)
        fine = entry and self.held.get(slot) == trial_id and entry.attempt == attempt
        return entry if fine else None

    def _status(self, row: dict) -> str:
        if not row["last"]:
            return "running"
        floor, chosen = self.config.sweep.floor, row["selected"]
        best = max(self.erm_best, chosen["w_f1"] if row["config"].get("loss") == "erm" else 0.0)
        degenerate = metrics.is_degenerate(
            acc=chosen["acc"],
            w_f1=chosen["w_f1"],
            majority_rate=row["dev"]["majority_rate"],
            floor=best / 2 if floor is None else floor,
        )
        return "degenerate" if degenerate else "finished"

    async def _return_to_queue(self, slot: str) -> None:
        trial_id = self.held.get(slot)
        if trial_id is None:
            return
        entry = self.entries[trial_id]
        reason = entry.trouble or "its worker process died"
        if entry.attempt >= self.config.sweep.attempts:
            await self._fail(entry, f"{reason} ({entry.attempt} attempts)")
        else:
            self._let_go(entry)
            self.queue.appendleft(trial_id)
            await self._tell()

    async def _fail(self, entry: Entry, reason: str) -> None:
        self.starts[entry.slot] = 0  # its deaths are accounted for
        row = self._row(entry, "failed", reason) | {"epoch": entry.epoch + 1}
        self.records.append(row)
        await self._end(entry, "failed", reason)

    async def _end(self, entry: Entry, status: str, reason: str | None) -> None:
        self.outcomes[entry.trial_id] = {"status": status, "reason": reason} | entry.selected
        self._let_go(entry)
        self.records.forget_checkpoints(entry.trial_id)
        self.events.ended(entry.chosen, entry.trial_id, entry.selected)
        await self._tell()

    def _let_go(self, entry: Entry) -> None:
        self.held.pop(entry.slot, None)
        entry.slot = None

    def _row(self, entry: Entry, status: str, reason: str | None) -> dict:
        return {
            "trial_id": entry.trial_id,
            "attempt": entry.attempt,
            "epoch": entry.epoch,
            "status": status,
            "reason": reason,
            "config": entry.chosen,
            "selected": entry.selected,
            "time": time.time(),
        }

    def _last_trouble(self) -> str:
        troubles = [e.trouble for e in self.entries.values() if e.trouble]
        return troubles[-1] if troubles else "without a word"

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _until(self, condition, timeout: float) -> None:
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(condition), timeout)
            except TimeoutError:
                pass
