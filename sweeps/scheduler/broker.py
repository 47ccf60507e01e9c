"""Who trains what: between Tune's trials and the slots. With its ledger the only writer of rows.

A Tune trial offers configurations and waits for their outcomes; a slot takes one, or a gang of
several that it trains in one pass (gangs.py), reports every epoch of each and is told whether to go
on. The row is the commit: it is appended (fsync) before the slot hears the answer. A slot that
takes while it still holds configurations has lost its worker group: they are handed out again from
their last committed epoch. That counts as one more attempt of a configuration that was alone; of a
gang nobody knows who was to blame, so its members are handed out alone from then on.

The class is plain asyncio and is tested without Ray; `slots.py` makes an actor of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ermgap import config
from ermgap.errors import UserError
from ermgap.records import Records
from ermgap.registry import load_plugins
from sweeps.recording.ledger import Ledger
from sweeps.recording.patience import keep_trying
from sweeps.scheduler.bells import Bells
from sweeps.search import gangs, space, stopping
from sweeps.search.gangs import Entry

T = TypeVar("T")
LINE = object()  # the bell of slots that wait; each trial has one by its id
STARTS = 4  # of a slot in a row without a committed epoch: something is wrong that no retry mends


class Broker:
    """One sweep's broker.

    Args:
        directory: the sweep folder; its records say what is already committed.
        lag: see `order.lag_of`.
    """

    def __init__(self, directory: str, *, lag: int | None = None) -> None:
        self.records = Records.open(directory)
        self.config = config.from_dict(self.records.sweep["config"])
        load_plugins(self.config.plugins)  # a hyperparameter may be one's
        self.ledger = Ledger(self.records, self.config, lag=lag)
        self.entries: dict[str, Entry] = {}
        self.offers: set[str] = set()
        self.line = gangs.Line(self.config.sweep.gang)
        self.held: dict[str, list[str]] = {}  # slot -> trial ids
        self.outcomes: dict[str, dict] = {}
        self.starts: dict[str, int] = {}
        self.asks: dict[str, int] = {}  # of each slot; only the youngest may be given a job
        self.notes: dict[str, str] = {}
        self.moments: list[tuple[str, str, float]] = []  # slot, what began there, when
        self.closing = self.interrupted = False
        self.fatal: str | None = None
        self.bells = Bells()

    # For Tune's trials --------------------------------------------------------------------------

    async def offer(self, trial_id: str, hyperparameters: dict) -> None:
        """Queue a configuration; one that is committed in part goes on from its last epoch.

        One that the configuration refuses ends as failed; a second offer of the same is ignored.
        """
        if trial_id in self.entries or trial_id in self.offers:
            return
        self.offers.add(trial_id)  # its first row may have to wait for the disk
        entry = await self._commit(lambda: self.ledger.open(trial_id, hyperparameters))
        self.offers.discard(trial_id)
        if entry is None:
            return
        self.entries[trial_id] = entry
        try:
            entry.config = space.apply(hyperparameters, self.config)
        except UserError as mistake:
            await self._fail(entry, str(mistake))
        else:
            self.line.add(entry)
        self._pass_on()  # a gang that is not full may have waited for this one

    async def outcome(self, trial_id: str, timeout: float) -> dict | None:
        """The outcome (`status`, `reason`, selected metrics), or None after `timeout` seconds."""
        await self.bells.until(
            trial_id, lambda: trial_id in self.outcomes or self._left(trial_id), timeout
        )
        if trial_id in self.outcomes:
            return self.outcomes[trial_id]
        return {"status": "interrupted"} if self._left(trial_id) else None

    # For slots ----------------------------------------------------------------------------------

    async def material(self, slot: str) -> dict:
        """What a slot's workers need to prepare themselves; asking counts as a start."""
        self.starts[slot] = self.starts.get(slot, 0) + 1
        if self.starts[slot] > STARTS * self.config.sweep.workers:
            words = [e.trouble for e in self.entries.values() if e.trouble] or ["without a word"]
            await self.give_up(
                f"the worker group {slot} died {STARTS} times before it finished an epoch "
                f"({words[-1]}); look into its logs and continue with --resume."
            )
        stored = self.records.sweep.get("storage")
        return {
            "config": self.records.sweep["config"],
            "table": self.records.table(),
            "storage": stored or str(self.records.directory.absolute()),
            "features": self.records.features,
        }

    async def take(self, slot: str, timeout: float) -> dict:
        """What a slot does next: `kind` is jobs (then `jobs` is a gang), wait (ask again) or close.

        A gang that is not full waits a moment for more, unless no more can come.
        """
        ask = self.asks[slot] = self.asks.get(slot, 0) + 1
        await self._return_to_queue(slot)
        await self.bells.until(LINE, lambda: self.line or self._stopped(), timeout)
        while (patience := self._patience()) > 0:
            await self.bells.until(LINE, lambda: self._patience() <= 0, patience)
        if self._stopped():
            return {"kind": "close"}
        # A group that died while it waited is still in here: what it is given would be lost.
        if not self.line or self.asks[slot] != ask:
            self._pass_on()
            return {"kind": "wait"}
        gang = self.line.take()
        self._pass_on()
        self.held[slot] = [entry.trial_id for entry in gang]
        self.moments.append((slot, "jobs", time.time()))
        return {"kind": "jobs", "jobs": [entry.handed_to(slot) for entry in gang]}

    async def left(self, slot: str) -> None:
        """A slot has ended for good: another one takes what it held."""
        await self._return_to_queue(slot)

    async def report(self, slot: str, row: dict) -> bool:
        """Commit an epoch's row; whether the slot shall go on with this configuration."""
        entry = self._current(slot, row["trial_id"], row["attempt"])
        if entry is None:
            return False

        def commit() -> str | None:
            now = self._current(slot, row["trial_id"], row["attempt"])
            return self.ledger.epoch(entry, row) if now is entry else None

        status = await self._commit(commit)
        if status is None:
            return False
        self.starts[slot] = 0
        if status != "running":
            await self._end(entry, status, None)
        elif self._stopped():
            self._let_go(entry)
        return status == "running" and not self._stopped()

    async def failed(self, slot: str, trial_id: str, attempt: int, reason: str) -> None:
        """All ranks of a slot agree that a configuration cannot go on."""
        entry = self._current(slot, trial_id, attempt)
        if entry is not None:
            await self._fail(entry, reason)

    async def behind(self, slot: str, trial_id: str, attempt: int, reason: str) -> None:
        """All ranks of a slot agree that a configuration's checkpoint cannot be read.

        It goes on from the one before, in the end from its start; that is no attempt of its own.
        """
        entry = self._current(slot, trial_id, attempt)
        if entry is None:
            return
        logging.getLogger(__name__).warning("%s: %s; it goes back an epoch", trial_id, reason)
        self._let_go(entry)
        entry.epoch, entry.attempt = entry.epoch - 1, entry.attempt - 1
        entry.curve = stopping.until(entry.epoch, entry.curve, self.config)
        self.line.put_back([entry])
        self._pass_on()

    async def trouble(self, slot: str, trials: list[str], text: str) -> None:
        """Word of an exception that is about to take the slot's group down.

        The first of an attempt counts: other ranks then only see their peer go.
        """
        for trial_id in set(trials) & set(self.held.get(slot, ())):
            self.entries[trial_id].trouble = self.entries[trial_id].trouble or text

    async def note(self, slot: str, text: str) -> None:
        """A line for the live progress."""
        self.notes[slot] = text
        stage = text.rstrip("0123456789/ ")
        if (slot, stage) not in [moment[:2] for moment in self.moments[-1:]]:
            self.moments.append((slot, stage, time.time()))

    # For the driver -----------------------------------------------------------------------------

    async def status(self) -> dict:
        """What the live progress shows."""
        running = [e for e in self.entries.values() if e.slot is not None]
        return {
            "running": {e.trial_id: e.epoch for e in running},
            "held": dict(sorted(self.held.items())),
            "queued": [entry.trial_id for entry in self.line.waiting],
            "ended": {name: outcome["status"] for name, outcome in self.outcomes.items()},
            "reasons": {name: o["reason"] for name, o in self.outcomes.items() if o.get("reason")},
            "notes": dict(self.notes),
            "fatal": self.fatal,
        }

    async def history(self) -> list[tuple[str, str, float]]:
        """What began when: `(slot, word, seconds since 1970)`, for the accounting of time."""
        return self.moments

    async def give_up(self, sentence: str) -> None:
        """End the sweep: `sentence` tells the user why."""
        self.fatal = self.fatal or sentence
        self.bells.ring_all()

    async def interrupt(self) -> None:
        """End after the epochs in flight; unfinished configurations stay unfinished."""
        self.interrupted = True
        self.bells.ring_all()

    async def close(self) -> None:
        """The sweep is over: slots that ask are told to close."""
        self.closing = True
        self.ledger.close()
        self.bells.ring_all()

    # Inside -------------------------------------------------------------------------------------

    def _stopped(self) -> bool:
        return self.closing or self.interrupted or self.fatal is not None

    def _patience(self) -> float:
        """Seconds for which a gang that is not full may wait for more."""
        complete = self.ledger.ended_before + len(self.entries) >= self.config.sweep.trials
        return 0.0 if complete or self._stopped() else self.line.patience()

    def _left(self, trial_id: str) -> bool:
        """Whether the sweep stops and no slot will end this configuration any more."""
        entry = self.entries.get(trial_id)
        training = entry is not None and entry.slot is not None and self.fatal is None
        return self._stopped() and not training

    def _current(self, slot: str, trial_id: str, attempt: int) -> Entry | None:
        entry = self.entries.get(trial_id)
        held = trial_id in self.held.get(slot, ())
        return entry if held and entry.attempt == attempt else None

    async def _return_to_queue(self, slot: str) -> None:
        lost = [self.entries[trial_id] for trial_id in self.held.get(slot, ())]
        if len(lost) > 1:
            self.starts.pop(slot, None)  # as where one fails: none is in a gang again
        for entry in lost:
            entry.spared = entry.spared or len(lost) > 1
            reason = f"{entry.trouble or 'its worker process died'} ({entry.attempt} attempts)"
            if entry.counted >= self.config.sweep.attempts:
                await self._fail(entry, reason)
            else:
                self._let_go(entry)
        if back := [entry for entry in lost if entry.trial_id not in self.outcomes]:
            self.line.put_back(back)
            self._pass_on()

    async def _fail(self, entry: Entry, reason: str) -> None:
        self.starts.pop(entry.slot, None)  # its deaths are accounted for
        if not await self._commit(lambda: self.ledger.failed(entry, reason)):
            return
        await self._end(entry, "failed", reason)

    async def _commit(self, write: Callable[[], T]) -> T | None:
        """What `write` returns, however long the disk refuses its row; None if it gives the sweep
        up for that."""
        try:
            return await keep_trying(write, self.records.directory)
        except UserError as trouble:
            await self.give_up(str(trouble))
            return None

    async def _end(self, entry: Entry, status: str, reason: str | None) -> None:
        told = {"status": status, "reason": reason, "curve": entry.curve}
        self.outcomes[entry.trial_id] = told | entry.selected
        self._let_go(entry)
        entry.config = None  # thousands of them would be kept for nothing
        self.ledger.ended(entry, status)

    def _let_go(self, entry: Entry) -> None:
        if mates := [one for one in self.held.pop(entry.slot, ()) if one != entry.trial_id]:
            self.held[entry.slot] = mates
        entry.slot = None
        self.bells.ring(entry.trial_id)

    def _pass_on(self) -> None:
        """Wake a slot that waits, if anybody is in line; it passes on what it leaves."""
        if self.line:
            self.bells.ring_one(LINE)
