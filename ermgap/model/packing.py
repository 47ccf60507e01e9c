"""Sequences packed end to end: no padding in any product, norm or activation.

Two sequences of 3 and 2 tokens after a shared prefix of 2 are packed as

    token   p0 p1 | a0 a1 a2 | b0 b1 | spare ...
    place    0  1    2  3  4    2  3   0 ...  position in its own sequence, for the rotary embedding

Only attention needs to know where sequences end: on a GPU it takes the packed tokens with their
bounds, on a CPU padded rows of equal length. A shared prefix is computed once for all sequences
that begin with it.

Spare tokens, about 2 % of a batch, fill the last block of `BLOCK` tokens. Otherwise the products of
every step would have another shape, for which a CPU compiles its bfloat16 kernels again (twice the
time of a step, and gigabytes of kernels). Nothing attends to them or reads them, so their gradient
is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np
import torch
from torch import Tensor

BLOCK = 64
ROW_BLOCK = 8


@dataclass(frozen=True)
class Packing:
    """Where the tokens of B sequences are, N in all; `own` tokens are those after the prefix.

    Attributes:
        prefix: P, number of shared tokens at the front (0: there are none).
        width: T, places of a padded row; the longest sequence has fewer own tokens.
        place: [N] int64, position of each token in its sequence.
        starts: [B] int64, first own token of each sequence, counted after the prefix.
        bounds: int32, cumulative lengths of the sequences after the prefix, as the variable-length
            kernel takes them; the spare tokens are the last sequence.
        rows: [B * T] int64, own token of each place of a padded row; past the end, its last token.
        places: [N - P] int64, the place of each own token in `rows`; a spare one's is padding.
        padding: int64, the places that are padding.
    """

    prefix: int
    width: int
    place: Tensor
    starts: Tensor
    bounds: Tensor
    rows: Tensor
    places: Tensor
    padding: Tensor

    @classmethod
    def of(cls, lengths: np.ndarray, *, prefix: int = 0) -> Packing:
        """From the own lengths [B] int64, all at least 1."""
        width = blocks(int(lengths.max()) + 1, ROW_BLOCK)
        ends = np.cumsum(lengths)
        spare = blocks(prefix + int(ends[-1]), BLOCK) - prefix - int(ends[-1])
        starts = ends - lengths
        grid = starts[:, None] + np.arange(width)
        inside = grid < ends[:, None]
        zeros = np.zeros(spare, dtype=np.int64)
        own = prefix + inside.nonzero()[1]
        arrays = {
            "place": np.concatenate([np.arange(prefix), own, zeros]),
            "starts": starts,
            "bounds": np.concatenate([[0], ends, [ends[-1] + spare] * (spare > 0)]).astype(
                np.int32
            ),
            "rows": np.minimum(grid, ends[:, None] - 1).ravel(),
            "places": np.concatenate([np.flatnonzero(inside), zeros + width - 1]),
            "padding": np.flatnonzero(~inside),
        }
        return cls(prefix, width, **{name: torch.from_numpy(a) for name, a in arrays.items()})

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.starts)


def blocks(count: int, size: int) -> int:
    """The next multiple of `size` from `count` on."""
    return -(-count // size) * size


def moved(value, device: torch.device | str):
    """A tensor, or the tensors of a dataclass, sent to a device without waiting for it."""
    if torch.device(device).type == "cpu":
        return value
    if is_dataclass(value):
        values = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **{name: moved(field, device) for name, field in values.items()})
    return value.pin_memory().to(device, non_blocking=True) if torch.is_tensor(value) else value
