"""The configurations that wait for a slot, and which of them it may train in one pass.

The members of a gang stand at the same epoch and are companions (ermgap/config/presets.py). Whoever
was in a worker group that died is handed out alone from then on, so that one that kills its process
cannot take others down for ever. If it was in a gang it is `spared`, since nobody knows who was to
blame: that attempt does not count.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from ermgap.config import Config, companions

QUIET_S = 1.0  # after the last offer, before a gang goes out that is not full


@dataclass
class Entry:
    """A configuration between its offer and its outcome."""

    trial_id: str
    hyperparameters: dict
    attempt: int = 0  # how often it was handed out
    epoch: int = 0  # the last committed one
    slot: str | None = None
    selected: dict = field(default_factory=dict)
    curve: list = field(default_factory=list)  # stopping.curve of its rows
    trouble: str | None = None
    spared: bool = False
    config: Config | None = None

    @property
    def counted(self) -> int:
        """Attempts that count against it."""
        return self.attempt - self.spared

    def handed_to(self, slot: str) -> dict:
        """What the slot is told; another attempt has begun."""
        self.slot, self.attempt, self.trouble = slot, self.attempt + 1, None
        told = {
            name: getattr(self, name)
            for name in ("trial_id", "attempt", "epoch", "hyperparameters")
        }
        return told | {"config": self.config.to_dict()}

    def joins(self, first: Entry) -> bool:
        """Whether it may be trained in one pass with `first`."""
        if self.attempt or first.attempt or self.epoch != first.epoch:
            return False
        return companions(first.config, self.config)


class Line:
    """Who waits, in the order of handing out.

    Args:
        size: members of a gang at most.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.waiting: deque[Entry] = deque()
        self.last_offer = -float("inf")

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, entry: Entry) -> None:
        """To the end of the line."""
        self.waiting.append(entry)
        self.last_offer = time.monotonic()

    def put_back(self, entries: Iterable[Entry]) -> None:
        """To its front, in the order given."""
        self.waiting.extendleft(reversed(list(entries)))

    def gang(self) -> list[Entry]:
        """The first in line and those behind it that may join, in order; nobody leaves the line."""
        if not self.waiting:
            return []
        # No further than needed: to compare two configurations takes a millisecond.
        first = self.waiting[0]
        others = (entry for entry in islice(self.waiting, 1, None) if entry.joins(first))
        return [first, *islice(others, self.size - 1)]

    def take(self) -> list[Entry]:
        """As `gang`, and they leave the line."""
        gang = self.gang()
        for entry in gang:
            self.waiting.remove(entry)
        return gang

    def patience(self) -> float:
        """Seconds to wait for more before the gang goes out; 0 or less: not at all."""
        gang = self.gang()
        if not gang or gang[0].attempt or len(gang) == self.size:
            return 0.0
        return self.last_offer + QUIET_S - time.monotonic()
