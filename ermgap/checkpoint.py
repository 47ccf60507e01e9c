"""What a run needs to go on after an epoch as if nothing had happened.

One file per epoch, written whole or not at all, read without unpickling code (`weights_only`). The
epoch before is kept until the next one is committed: a crash between the file and its row leaves
the file that the last row speaks of. Sampler and random numbers are functions of (seed, epoch,
rank) and need no state.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ermgap.errors import RunFailed
from ermgap.files import write_atomically


def path_of(storage: Path, trial_id: str, epoch: int) -> Path:
    """Where the checkpoint after `epoch` (from 1) of a trial lies."""
    return storage / "checkpoints" / trial_id / f"epoch-{epoch:04d}.pt"


def save(path: Path, state: dict) -> None:
    """Write a checkpoint of tensors and plain values; of those before it, keep the last one."""
    write_atomically(path, lambda temporary: torch.save(state, temporary))
    # Later ones may lie there from an attempt that got further: they must not push this one out.
    kept = sorted(path.parent.glob("epoch-*.pt"))
    for old in kept[: max(kept.index(path) - 1, 0)]:
        old.unlink(missing_ok=True)


def load(path: Path) -> dict:
    """Read a checkpoint onto the CPU; RunFailed names a file that is missing or damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as problem:
        raise RunFailed(
            f"checkpoint {path.name} is missing, so the run cannot be continued"
        ) from problem
    except Exception as problem:
        raise RunFailed(
            f"checkpoint {path.name} is damaged ({type(problem).__name__})"
        ) from problem
