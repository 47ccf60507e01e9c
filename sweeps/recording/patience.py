"""Rows that a disk refuses for a while: tried again without holding up the broker.

    status = await keep_trying(lambda: ledger.epoch(entry, row), directory)

A row is the commit of an epoch, so the slot waits for its answer; the others go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ermgap.errors import UserError, first_line
from ermgap.records import patience

PAUSE_S = 0.5
T = TypeVar("T")


async def keep_trying(write: Callable[[], T], directory: Path) -> T:
    """Call `write` until it raises no OSError; its result.

    Raises:
        UserError: it did for as long as a storage is waited for
        (`ermgap.records.storage.patience`).
    """
    begun = time.monotonic()
    while True:
        try:
            return write()
        except OSError as problem:
            waited = time.monotonic() - begun
            if waited > patience():
                raise UserError(
                    f"{directory} could not be written for {waited:.0f} s "
                    f"({problem.strerror or first_line(problem)}); make room or make it writable, "
                    "then continue with --resume."
                ) from problem
            await asyncio.sleep(PAUSE_S)
