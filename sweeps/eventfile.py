"""A TensorBoard events file without a thread, a queue or an open file of its own.

tensorboardX's writer has two threads and three descriptors a run, and waits for the disk with every
flush, which a copy of the records need not do. Here each addition opens the file, appends whole
records and closes it; all scalars of an epoch are one event. The messages are tensorboardX's, which
needs no torch.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType


class EventFile:
    """The events of one run, from now on; an earlier session's lie in a file beside it.

    Args:
        folder: of the run; made when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"events.out.tfevents.{int(time.time())}.{os.getpid()}"

    def add(self, *summaries, step: int | None = None, when: float | None = None) -> None:
        """An event for each of tensorboardX's summaries; `when` in seconds since 1970, or now."""
        event = tensorboardx().proto.event_pb2.Event
        when = time.time() if when is None else when
        made = [event(wall_time=when, step=step, summary=summary) for summary in summaries]
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            made.insert(0, event(wall_time=when, file_version="brain.Event:2"))
        with open(self.path, "ab") as file:
            file.write(b"".join(_record(one.SerializeToString()) for one in made))


def scalars(values: Mapping[str, float]):
    """One summary of all values, by tag."""
    made = tensorboardx().proto.summary_pb2.Summary()
    for name, value in values.items():
        made.value.add(tag=_tag(name), simple_value=value)
    return made


@functools.cache
def tensorboardx() -> ModuleType:
    """It imports torch where it can, for tensors that it is never given here: 1 s."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # an import of it fails
    try:
        import tensorboardX
        import tensorboardX.record_writer
        import tensorboardX.summary
    finally:
        if hidden:
            del sys.modules["torch"]
    return tensorboardX


@functools.cache
def _tag(name: str) -> str:
    """The name without what TensorBoard takes for illegal."""
    return tensorboardx().summary.scalar(name, 0.0).value[0].tag


def _record(data: bytes) -> bytes:
    check = tensorboardx().record_writer.masked_crc32c
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", check(head)) + data + struct.pack("<I", check(data))
