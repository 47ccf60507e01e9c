"""Coroutines that wait for named events, each woken by its own event alone.

A condition variable wakes everybody: with a thousand trials that each wait for their own outcome,
every end would have a thousand coroutines check their condition for nothing.

    await wake_ups.until("t0001", lambda: "t0001" in outcomes, 30.0)
    wake_ups.wake("t0001")      # all who wait for it check their condition
    wake_ups.wake_one("queue")  # the one that has waited longest; it wakes the next one
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable


class WakeUps:
    """The waiting coroutines of one event loop; not to be called from another thread."""

    def __init__(self) -> None:
        self.waiting: dict[Hashable, dict[asyncio.Future, None]] = {}  # in their order of coming

    async def until(self, name: Hashable, condition: Callable, timeout: float) -> None:
        """Wait until the condition holds or `timeout` seconds are over.

        It is checked when `name` is woken and at no other time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while not condition() and (remaining := end - loop.time()) > 0:
            woken = loop.create_future()
            self.waiting.setdefault(name, {})[woken] = None
            alarm = loop.call_later(remaining, _set, woken)
            try:
                await woken
            except asyncio.CancelledError:
                if woken.done() and not woken.cancelled():  # it was woken, and is gone
                    self.wake_one(name)
                raise
            finally:
                alarm.cancel()
                self._forget(name, woken)

    def wake(self, name: Hashable) -> None:
        """Wake all who wait for `name`."""
        for woken in self.waiting.get(name, ()):
            _set(woken)

    def wake_one(self, name: Hashable) -> None:
        """Wake the first of those who wait for `name` and have not been woken yet."""
        for woken in self.waiting.get(name, ()):
            if not woken.done():
                return _set(woken)

    def wake_all(self) -> None:
        """Wake everybody."""
        for name in self.waiting:
            self.wake(name)

    def _forget(self, name: Hashable, woken: asyncio.Future) -> None:
        del self.waiting[name][woken]
        if not self.waiting[name]:
            del self.waiting[name]


def _set(woken: asyncio.Future) -> None:
    if not woken.done():
        woken.set_result(None)
