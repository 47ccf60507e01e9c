"""Rows that a disk refuses for a while: tried again without holding up the broker.

    status = await keep_trying(lambda: ledger.epoch(entry, row), directory)

A row is the commit of an epoch, so the slot waits for its answer; the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ermgap.records import Retry

PAUSE_S = 0.5
T = TypeVar("T")


async def keep_trying(write: Callable[[], T], directory: Path) -> T:
    """What `write` returns, called again while it raises OSError.

    Raises:
        StorageError: the disk failed for as long as a storage is waited for (`Retry`).
    """
    retry = Retry(directory, "rows cannot be written", longest_s=PAUSE_S)
    while True:
        try:
            return write()
        except OSError as problem:
            await asyncio.sleep(retry.pause(problem))
