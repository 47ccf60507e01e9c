"""Sequences laid end to end: no padding in any product, norm or activation.

Two sequences of 3 and 2 tokens after a shared prefix of 2 are packed as

    token   p0 p1 | a0 a1 a2 | b0 b1
    place    0  1    2  3  4    2  3          position in its own sequence, for the rotary embedding

Attention alone needs to know where sequences end. A GPU takes the packed tokens with their starts;
a CPU takes rows of equal length, whose padding only attention pays for. A shared prefix is computed
once for all sequences that begin with it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the tokens of B sequences are, N in all; `own` tokens are those after the prefix.

    Attributes:
        prefix: P, number of shared tokens at the front (0: there are none).
        longest: T, largest number of own tokens of a sequence.
        place: [N] int64, position of each token in its sequence.
        starts: [B + 1] int32, cumulative own lengths.
        rows: [B * T] int64, own token of each place of a padded row; past the end, its last token.
        places: [N - P] int64, the place of each own token in `rows`.
        padding: int64, the places that only pad.
    """

    prefix: int
    longest: int
    place: Tensor
    starts: Tensor
    rows: Tensor
    places: Tensor
    padding: Tensor

    @classmethod
    def of(cls, lengths: np.ndarray, *, prefix: int = 0) -> Packing:
        """From the own lengths [B] int64, all at least 1."""
        longest = int(lengths.max())
        ends = np.cumsum(lengths)
        starts = ends - lengths
        grid = starts[:, None] + np.arange(longest)
        inside = grid < ends[:, None]
        place = np.concatenate(
            [np.arange(prefix), prefix + np.arange(longest)[inside.nonzero()[1]]]
        )
        arrays = {
            "place": place,
            "starts": np.concatenate([[0], ends]).astype(np.int32),
            "rows": np.minimum(grid, ends[:, None] - 1).ravel(),
            "places": np.flatnonzero(inside),
            "padding": np.flatnonzero(~inside),
        }
        return cls(prefix, longest, **{name: torch.from_numpy(a) for name, a in arrays.items()})

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.starts) - 1

    def to(self, device: torch.device | str) -> Packing:
        """The same with its tensors on a device, copied without waiting."""
        return Packing(
            **{field.name: moved(getattr(self, field.name), device) for field in fields(self)}
        )


def moved(value, device: torch.device | str):
    """A tensor sent to a device without waiting for it; anything else as it is."""
    if not isinstance(value, Tensor) or torch.device(device).type == "cpu":
        return value
    return value.pin_memory().to(device, non_blocking=True)
