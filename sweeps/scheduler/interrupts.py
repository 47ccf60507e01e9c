"""Ctrl-C and the signals of whoever takes the machine or the terminal back.

    with Interrupts() as interrupts:
        try:
            with interrupts.raised():     # here, and only here, one raises KeyboardInterrupt
                search()
        finally:
            clean_up()                    # further signals are counted

A signal that comes outside `raised` is kept for the next one. The old handlers return at the end.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = [signal.SIGINT, signal.SIGTERM]  # also where a shell made Python ignore them


class Interrupts:
    """The signals while it is entered: `count` of them so far. Of the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._armed, self._kept = False, False
        self._before: dict = {}

    def __enter__(self) -> Interrupts:
        hang_up = getattr(signal, "SIGHUP", None)
        heard = hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN  # nohup
        for number in [*SIGNALS, *([hang_up] if heard else [])]:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def raised(self, *, kept: bool = True) -> Iterator[None]:
        """In here the first signal raises KeyboardInterrupt; one that was kept does if `kept`."""
        self._armed, self._kept = True, self._kept and kept
        try:
            if self._kept:
                self._raise()
            yield
        finally:
            self._armed = False

    def _note(self, number: int, frame: object) -> None:
        self.count += 1
        self._kept = True
        if self._armed:
            self._raise()

    def _raise(self) -> None:
        self._armed = self._kept = False
        raise KeyboardInterrupt
