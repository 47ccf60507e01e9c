"""Whether a worker group begins at all: what a sweep waits for, and when it gives up."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ermgap.errors import UserError
from sweeps.scheduler.machines import autoscaler

if TYPE_CHECKING:  # Ray
    from sweeps.scheduler.slots import Layout

NEVER_S = 60.0  # where no node fits and none can come: one may only have restarted
HERE_S = 600.0  # where Ray is our own: its workers start in seconds, on a busy machine in minutes
GROW_S = 1800.0  # until a node of a cluster that grows is there
SAY_S = 60.0


class StartWatch:
    """Looks after each second until a worker group has begun.

    Args:
        layout: of the groups.
        alone: whether Ray was started for this sweep.
        asked: whether nodes were asked of the autoscaler.
    """

    def __init__(self, layout: Layout, *, alone: bool, asked: bool) -> None:
        self.layout, self.alone, self.asked = layout, alone, asked
        self.since = self.said = time.monotonic()
        self.begun = False

    def look(self, status: Mapping, *, room: int) -> str | None:
        """A line about what is waited for, or None.

        Args:
            status: the broker's.
            room: workers that the nodes carry by now.

        Raises:
            UserError: no group can begin, or none has for long.
        """
        self.begun = self.begun or any(status[key] for key in ("notes", "slots", "ended"))
        if self.begun:
            return None
        now = time.monotonic()
        if now - self.since > self._patience(now - self.since, room):
            raise UserError(
                f"no worker group began in {now - self.since:.0f} s: {self._missing(room)}; "
                f"{self._remedy(room)}, then continue with --resume."
            )
        if now - self.said < SAY_S:
            return None
        self.said = now
        return f"waiting for a worker group to begin: {self._missing(room)}"

    def _patience(self, waited: float, room: int) -> float:
        given = os.environ.get("ERMGAP_START_PATIENCE_S")
        if room >= self.layout.workers:  # on a cluster others may hold the devices, for hours
            return float(given or HERE_S) if self.alone else float("inf")
        if self.asked and (waited < NEVER_S or autoscaler.grows()):
            return float(given or GROW_S)
        return NEVER_S

    def _missing(self, room: int) -> str:
        device = "a CPU and a GPU" if self.layout.gpu else "a CPU"
        fits = room >= self.layout.workers
        there = "have that, perhaps in use" if fits else f"have room for {room}"
        return f"it takes {self.layout.workers} worker(s) with {device} each, and the nodes {there}"

    def _remedy(self, room: int) -> str:
        if room >= self.layout.workers:
            return "look into Ray's logs, and whether the machine is busy"
        return "start nodes that have it, or lower sweep.workers or set sweep.device"
