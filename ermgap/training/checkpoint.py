"""What a run needs to go on after an epoch as if nothing had happened.

One file per epoch, written whole or not at all, read without unpickling code (`weights_only`). The
epoch before is kept until the next one is committed: a crash between the file and its row leaves
the file that the last row speaks of. Sampler and random numbers are functions of (seed, epoch,
rank) and need no state.

Those of a trial that others may branch from are kept up to the last epoch of branching.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import torch

from ermgap.errors import RunFailed
from ermgap.records import Storage


class Unreadable(RunFailed):
    """A checkpoint that is missing or damaged: the run may go on from an earlier epoch."""


def folder_of(trial_id: str) -> str:
    """Name of the folder of a trial's checkpoints in the storage."""
    return f"checkpoints/{trial_id}"


def name_of(trial_id: str, epoch: int) -> str:
    """Name of the checkpoint after `epoch` (from 1) of a trial in the storage."""
    return f"{folder_of(trial_id)}/epoch-{epoch:04d}.pt"


def save(storage: Storage, trial_id: str, epoch: int, state: dict, *, keep: int = 0) -> None:
    """Write a checkpoint of tensors and plain values.

    Of those before it, the last one is kept, and those up to epoch `keep`.
    """

    def write(temporary: Path) -> None:
        try:
            torch.save(state, temporary)
        except RuntimeError as problem:
            if "inline_container" not in str(problem):
                raise
            # How torch's writer says that the disk is full or gone.
            full = shutil.disk_usage(temporary.parent).free < 2**20
            number = errno.ENOSPC if full else errno.EIO
            raise OSError(number, os.strerror(number)) from problem

    storage.write(name_of(trial_id, epoch), write)
    # Later ones may lie there from an attempt that got further: they must not push this one out.
    kept = [name for name in storage.names(folder_of(trial_id)) if name.startswith("epoch-")]
    earlier = [name for name in kept if name < name_of(trial_id, epoch).rsplit("/", 1)[1]]
    for old in earlier[:-1]:
        if old <= name_of(trial_id, keep).rsplit("/", 1)[1]:
            continue
        storage.remove(f"{folder_of(trial_id)}/{old}")


def load(storage: Storage, trial_id: str, epoch: int) -> dict:
    """Read a checkpoint onto the CPU; Unreadable names one that is missing or damaged."""
    path = storage.fetch(name_of(trial_id, epoch))
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as problem:
        raise Unreadable(
            f"checkpoint {path.name} is missing, so the run cannot be continued"
        ) from problem
    except Exception as problem:
        raise Unreadable(
            f"checkpoint {path.name} is damaged ({type(problem).__name__})"
        ) from problem
