"""Who waits for what, and how each is woken by its own event alone.

A condition variable wakes everybody: with a thousand trials that each wait for their own outcome,
every end would have a thousand coroutines look around and lie down again.

    await bells.until("t0001", lambda: "t0001" in outcomes, 30.0)
    bells.ring("t0001")         # whoever waits there looks at its condition
    bells.ring_one("line")      # the one that has waited longest; it passes on what it leaves
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable


class Bells:
    """Of one event loop; nothing here may be called from another thread."""

    def __init__(self) -> None:
        self.waiting: dict[Hashable, dict[asyncio.Future, None]] = {}  # in the order of coming

    async def until(self, name: Hashable, condition: Callable, timeout: float) -> None:
        """Wait until the condition holds or `timeout` seconds are over.

        It is looked at when the bell `name` rings and at no other time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while not condition() and (left := end - loop.time()) > 0:
            rung = loop.create_future()
            self.waiting.setdefault(name, {})[rung] = None
            alarm = loop.call_later(left, _set, rung)
            try:
                await rung
            except asyncio.CancelledError:
                if rung.done() and not rung.cancelled():  # rung for somebody who is not there
                    self.ring_one(name)
                raise
            finally:
                alarm.cancel()
                self._forget(name, rung)

    def ring(self, name: Hashable) -> None:
        """Wake all who wait at `name`."""
        for rung in self.waiting.get(name, ()):
            _set(rung)

    def ring_one(self, name: Hashable) -> None:
        """Wake the first of those who wait at `name` and have not been woken yet."""
        for rung in self.waiting.get(name, ()):
            if not rung.done():
                return _set(rung)

    def ring_all(self) -> None:
        """Wake everybody."""
        for name in self.waiting:
            self.ring(name)

    def _forget(self, name: Hashable, rung: asyncio.Future) -> None:
        there = self.waiting[name]
        del there[rung]
        if not there:
            del self.waiting[name]


def _set(rung: asyncio.Future) -> None:
    if not rung.done():
        rung.set_result(None)
