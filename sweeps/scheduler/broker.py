"""Hands trials to the worker groups (slots) and commits what they report.

A Tune trial offers its hyperparameters and waits for the outcome; a slot takes one trial at a time,
reports every epoch and hears whether to go on. With its ledger the broker is the only writer of
rows. The row is the commit: it is appended (fsync) before the slot hears the answer. A slot that
asks for work while its trial has not ended has lost its worker group: the trial is handed out again
from its last committed epoch, as one more attempt.

The class is plain asyncio and is tested without Ray; `slots.py` makes an actor of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ermgap import config
from ermgap.errors import UserError
from ermgap.records import Records, Retry
from ermgap.registry import load_plugins
from sweeps.recording.ledger import Ledger, OpenTrial
from sweeps.scheduler.wake_ups import WakeUps
from sweeps.search import space

T = TypeVar("T")
QUEUE = object()  # what slots wait for; a Tune trial waits for its trial's id
RETRY_S = 0.5  # between two tries of a row that the disk refuses, at most
STARTS = 4  # of a slot in a row without a committed epoch: something is wrong that no retry fixes


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
        self.trials: dict[str, OpenTrial] = {}
        self.offers: set[str] = set()  # ids of trials whose first row is being written
        self.queue: deque[OpenTrial] = deque()  # those that wait for a slot
        self.slots: dict[str, str] = {}  # slot -> id of the trial that it trains
        self.outcomes: dict[str, dict] = {}
        self.starts: dict[str, int] = {}
        self.asks: dict[str, int] = {}  # of each slot; only the youngest may be given a trial
        self.notes: dict[str, str] = {}
        self.moments: list[tuple[str, str, float]] = []  # slot, what began there, when
        self.closing = self.interrupted = False
        self.fatal: str | None = None
        self.wake_ups = WakeUps()

    # For Tune's trials --------------------------------------------------------------------------

    async def offer(self, trial_id: str, hyperparameters: dict) -> None:
        """Queue a trial; one that is committed in part goes on from its last epoch.

        One whose configuration is not possible ends as failed; a second offer of the same is
        ignored.
        """
        if trial_id in self.trials or trial_id in self.offers:
            return
        self.offers.add(trial_id)  # its first row may have to wait for the disk
        trial = await self._commit(lambda: self.ledger.open(trial_id, hyperparameters))
        self.offers.discard(trial_id)
        if trial is None:
            return
        self.trials[trial_id] = trial
        try:
            trial.config = space.apply(hyperparameters, self.config)
        except UserError as mistake:
            await self._fail(trial, str(mistake))
        else:
            self.queue.append(trial)
            self._wake_slot()

    async def outcome(self, trial_id: str, timeout: float) -> dict | None:
        """The outcome (`status`, `reason`, selected metrics), or None after `timeout` seconds."""
        await self.wake_ups.until(
            trial_id, lambda: trial_id in self.outcomes or self._abandoned(trial_id), timeout
        )
        if trial_id in self.outcomes:
            return self.outcomes[trial_id]
        return {"status": "interrupted"} if self._abandoned(trial_id) else None

    # For slots ----------------------------------------------------------------------------------

    async def setup(self, slot: str) -> dict:
        """What a slot's workers need to prepare themselves; asking counts as a start."""
        self.starts[slot] = self.starts.get(slot, 0) + 1
        if self.starts[slot] > STARTS * self.config.sweep.workers:
            troubles = [trial.trouble for trial in self.trials.values() if trial.trouble]
            await self.give_up(
                f"the worker group {slot} died {STARTS} times before it finished an epoch "
                f"({(troubles or ['without a message'])[-1]}); look into its logs and continue "
                "with --resume."
            )
        stored = self.records.sweep.get("storage")
        return {
            "config": self.records.sweep["config"],
            "table": self.records.table(),
            "storage": stored or str(self.records.directory.absolute()),
            "features": self.records.features,
        }

    async def take(self, slot: str, timeout: float) -> dict:
        """What a slot does next: its `kind` is trial (to be trained), wait (ask again) or close."""
        ask = self.asks[slot] = self.asks.get(slot, 0) + 1
        await self._return_to_queue(slot)
        await self.wake_ups.until(QUEUE, lambda: self.queue or self._stopped(), timeout)
        if self._stopped():
            return {"kind": "close"}
        # A group that died while it waited is still in here: what it is given would be lost.
        if not self.queue or self.asks[slot] != ask:
            self._wake_slot()
            return {"kind": "wait"}
        trial = self.queue.popleft()
        self.ledger.begin(trial)
        self._wake_slot()
        self.slots[slot] = trial.trial_id
        self.moments.append((slot, "trial", time.time()))
        return {"kind": "trial", "trial": trial.handed_to(slot)}

    async def slot_ended(self, slot: str) -> None:
        """A slot has ended for good: another one takes its trial."""
        await self._return_to_queue(slot)

    async def report(self, slot: str, row: dict) -> bool:
        """Commit an epoch's row; whether the slot shall go on with this trial."""
        trial = self._current(slot, row["trial_id"], row["attempt"])
        if trial is None:
            return False

        def commit() -> str | None:
            now = self._current(slot, row["trial_id"], row["attempt"])
            return self.ledger.epoch(trial, row) if now is trial else None

        status = await self._commit(commit)
        if status is None:
            return False
        self.starts[slot] = 0
        if status != "running":
            await self._end(trial, status, None)
        elif self._stopped():
            self._release(trial)
        return status == "running" and not self._stopped()

    async def failed(self, slot: str, trial_id: str, attempt: int, reason: str) -> None:
        """All ranks of a slot agree that a trial cannot go on."""
        trial = self._current(slot, trial_id, attempt)
        if trial is not None:
            await self._fail(trial, reason)

    async def checkpoint_lost(self, slot: str, trial_id: str, attempt: int, reason: str) -> None:
        """All ranks of a slot agree that a trial's checkpoint cannot be read.

        It goes on from the one before, in the end from its start; that is no attempt of its own.
        """
        trial = self._current(slot, trial_id, attempt)
        if trial is None:
            return
        logging.getLogger(__name__).warning("%s: %s; it goes back an epoch", trial_id, reason)
        self.ledger.back(trial)
        trial.attempt -= 1
        self._put_back(trial)

    async def trouble(self, slot: str, trial_id: str, text: str) -> None:
        """Message of an exception that is about to end the slot's worker group.

        The first of an attempt counts: other ranks then only see their peer go.
        """
        if self.slots.get(slot) == trial_id:
            self.trials[trial_id].trouble = self.trials[trial_id].trouble or text

    async def note(self, slot: str, text: str) -> None:
        """A line for the live progress."""
        self.notes[slot] = text
        stage = text.rstrip("0123456789/ ")
        if (slot, stage) not in [moment[:2] for moment in self.moments[-1:]]:
            self.moments.append((slot, stage, time.time()))

    # For the driver -----------------------------------------------------------------------------

    async def status(self) -> dict:
        """What the live progress shows."""
        return {
            "running": {t.trial_id: t.epoch for t in self.trials.values() if t.slot is not None},
            "slots": dict(sorted(self.slots.items())),
            "queued": [trial.trial_id for trial in self.queue],
            "ended": {name: outcome["status"] for name, outcome in self.outcomes.items()},
            "reasons": {name: o["reason"] for name, o in self.outcomes.items() if o.get("reason")},
            "notes": dict(self.notes),
            "fatal": self.fatal,
        }

    async def history(self) -> list[tuple[str, str, float]]:
        """What began when: `(slot, stage, seconds since 1970)`, for the accounting of time."""
        return self.moments

    async def give_up(self, sentence: str) -> None:
        """End the sweep: `sentence` tells the user why."""
        self.fatal = self.fatal or sentence
        self.wake_ups.wake_all()

    async def interrupt(self) -> None:
        """End after the epochs in flight; unfinished trials stay unfinished."""
        self.interrupted = True
        self.wake_ups.wake_all()

    async def close(self) -> None:
        """The sweep is over: slots that ask hear that they are to close."""
        self.closing = True
        self.ledger.close()
        self.wake_ups.wake_all()

    # Inside -------------------------------------------------------------------------------------

    def _stopped(self) -> bool:
        return self.closing or self.interrupted or self.fatal is not None

    def _abandoned(self, trial_id: str) -> bool:
        """Whether the sweep stops and no slot will end this trial any more."""
        trial = self.trials.get(trial_id)
        training = trial is not None and trial.slot is not None and self.fatal is None
        return self._stopped() and not training

    def _current(self, slot: str, trial_id: str, attempt: int) -> OpenTrial | None:
        """The trial, if this slot trains it in this attempt."""
        trial = self.trials.get(trial_id)
        current = self.slots.get(slot) == trial_id and trial.attempt == attempt
        return trial if current else None

    async def _return_to_queue(self, slot: str) -> None:
        """Take the trial of a slot that has lost its worker group; it fails at its last attempt."""
        if (trial_id := self.slots.get(slot)) is None:
            return
        trial = self.trials[trial_id]
        if trial.attempt < self.config.sweep.attempts:
            self._put_back(trial)
        else:
            cause = trial.trouble or "its worker process died"
            await self._fail(trial, f"{cause} ({trial.attempt} attempts)")

    def _put_back(self, trial: OpenTrial) -> None:
        self._release(trial)
        self.queue.appendleft(trial)
        self._wake_slot()

    async def _fail(self, trial: OpenTrial, reason: str) -> None:
        self.starts.pop(trial.slot, None)  # its deaths are accounted for
        if await self._commit(lambda: self.ledger.failed(trial, reason)):
            await self._end(trial, "failed", reason)

    async def _commit(self, write: Callable[[], T]) -> T | None:
        """What `write` returns; tried again while the disk refuses its row, beside all else.

        None where the disk refused for so long that the sweep is given up.
        """
        retry = Retry(self.records.directory, "rows cannot be written", longest_s=RETRY_S)
        try:
            while True:
                try:
                    return write()
                except OSError as problem:
                    await asyncio.sleep(retry.pause(problem))
        except UserError as trouble:
            await self.give_up(str(trouble))
            return None

    async def _end(self, trial: OpenTrial, status: str, reason: str | None) -> None:
        outcome = {"status": status, "reason": reason, "curve": trial.curve}
        self.outcomes[trial.trial_id] = outcome | trial.selected
        self._release(trial)
        trial.config = None  # thousands of them would be kept for nothing
        self.ledger.ended(trial, status)

    def _release(self, trial: OpenTrial) -> None:
        """No slot trains it any more."""
        self.slots.pop(trial.slot, None)
        trial.slot = None
        self.wake_ups.wake(trial.trial_id)

    def _wake_slot(self) -> None:
        """Wake a slot that waits, if a trial does; the slot wakes the next one."""
        if self.queue:
            self.wake_ups.wake_one(QUEUE)
