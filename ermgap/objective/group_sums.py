"""Sums of the losses per cell and gender, from which every objective is computed.

A cell is a (language, modality) pair; it has a female and a male side. For utterance i with loss
l_i in cell c and gender g, a global batch is reduced to

    S[c, g] = sum l_i        Q[c, g] = sum l_i^2        N[c, g] = number of utterances

An objective J is a function of S, Q and N alone. Its gradient with respect to the model is then

    dJ/dtheta = sum_i w_i dl_i/dtheta,    w_i = dJ/dS[c_i, g_i] + 2 l_i dJ/dQ[c_i, g_i]

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


def group_sums(losses: Tensor, cell: Tensor, gender: Tensor, *, cells: int) -> Tensor:
    """S, Q and N of one shard; the global batch's are the sum over the shards.

    Args:
        losses: per-utterance losses, [B], nats, any float dtype; no gradient flows from here.
        cell: index of each utterance's cell, [B], int64 in [0, cells).
        gender: 0 female, 1 male, [B], int64.
        cells: number of cells C.

    Returns:
        [3, C, 2] float64: S, Q and N.
    """
    losses = losses.detach().double()
    flat = cell * 2 + gender
    terms = torch.stack([losses, losses.square(), torch.ones_like(losses)])
    sums = torch.zeros(3, cells * 2, dtype=torch.float64, device=losses.device)
    return sums.index_add_(1, flat, terms).view(3, cells, 2)


def utterance_weights(gradient: Tensor, losses: Tensor, cell: Tensor, gender: Tensor) -> Tensor:
    """The weight w_i of each utterance's loss in the gradient (see the module docstring).

    Args:
        gradient: dJ/d(S, Q, N), [3, C, 2] float64 (the row for N is not used).
        losses, cell, gender: as for `group_sums`.

    Returns:
        [B] in the dtype of `losses`, detached.
    """
    d_sum, d_square = gradient[0][cell, gender], gradient[1][cell, gender]
    return (d_sum + 2 * losses.detach().double() * d_square).to(losses.dtype)


def group_means(sums: Tensor) -> Tensor:
    """Mean loss per cell and gender, [C, 2] float64; NaN where a group has no utterance."""
    total, _, count = sums
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def cell_names(cells: Sequence[tuple[str, str]]) -> list[str]:
    """`language/modality` of each cell, its name in records and events."""
    return ["/".join(cell) for cell in cells]
