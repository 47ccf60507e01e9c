"""Sums of the losses per cell and side, from which every objective is computed.

A cell is a (language, modality) pair; a side is a value of the sensitive attribute, and a group a
side in a cell. For utterance i with loss l_i in cell c and side s, a global batch is reduced to

    S[c, s] = sum l_i        Q[c, s] = sum l_i^2        N[c, s] = number of utterances

Where training has utterances of unknown side, theirs stand in a last column of their own.

An objective J is a function of S, Q and N alone. Its gradient with respect to the model is then

    dJ/dtheta = sum_i w_i dl_i/dtheta,    w_i = dJ/dS[c_i, s_i] + 2 l_i dJ/dQ[c_i, s_i]

by the chain rule. So workers and micro-batches only need to agree on S, Q and N: all-reduce them,
differentiate J once, and let every worker back-propagate `sum_i w_i l_i` over its own utterances.
The sum of the workers' gradients is the exact gradient of J over the global batch, however it was
sharded. Averaging objectives per worker would be wrong: a maximum over group means is no average
over utterances.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def group_sums(losses: Tensor, cell: Tensor, side: Tensor, *, cells: int, sides: int) -> Tensor:
    """S, Q and N of one shard; the global batch's are the sum over the shards.

    Args:
        losses: per-utterance losses, [B], nats, any float dtype; no gradient flows from here.
        cell: index of each utterance's cell, [B], int64 in [0, cells).
        side: index of each utterance's side, [B], int64 in [0, sides).
        cells, sides: numbers of cells C and of columns: the S sides, and one more for unknown ones.

    Returns:
        [3, C, sides] float64: S, Q and N.
    """
    losses = losses.detach().double()
    flat = cell * sides + side
    terms = torch.stack([losses, losses.square(), torch.ones_like(losses)])
    sums = torch.zeros(3, cells * sides, dtype=torch.float64, device=losses.device)
    return sums.index_add_(1, flat, terms).view(3, cells, sides)


def utterance_weights(gradient: Tensor, losses: Tensor, cell: Tensor, side: Tensor) -> Tensor:
    """The weight w_i of each utterance's loss in the gradient (see the module docstring).

    Args:
        gradient: dJ/d(S, Q, N), [3, C, sides] float64 (the row for N is not used).
        losses, cell, side: as for `group_sums`.

    Returns:
        [B] in the dtype of `losses`, detached.
    """
    d_sum, d_square = gradient[0][cell, side], gradient[1][cell, side]
    return (d_sum + 2 * losses.detach().double() * d_square).to(losses.dtype)


def group_means(sums: Tensor) -> Tensor:
    """Mean loss per cell and side, [C, sides] float64; NaN where a group has no utterance."""
    total, _, count = sums
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def cell_names(cells: Sequence[tuple[str, str]]) -> list[str]:
    """`language/modality` of each cell, its name in records and events."""
    return ["/".join(cell) for cell in cells]
