"""Batches that keep the sides of every cell, shuffled anew each epoch.

The utterances of each stratum (cell x side, unknown ones as a side of their own) are shuffled, laid
end to end, and dealt like cards: position i goes to batch (i + offset) mod batches. A stratum is a
run of consecutive positions, so each batch gets the floor or the ceiling of its even share; a
stratum with at least as many utterances as there are batches is therefore in every batch, and batch
sizes differ by one at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def epoch_batches(strata: np.ndarray, *, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The global batches of one epoch: a pure function, so that resuming needs no state.

    Args:
        strata: stratum of each utterance, [N] int64.
        batch: utterances in a global batch, at most; the last remainder is spread, not dropped.
        seed, epoch: select the permutation.

    Returns:
        ceil(N / batch) arrays of row indices, each in random order.
    """
    generator = np.random.default_rng([seed, epoch])
    count = -(-len(strata) // batch)
    order = generator.permutation(len(strata))
    names = generator.permutation(np.unique(strata))
    rank = {name: place for place, name in enumerate(names)}
    order = order[np.argsort([rank[s] for s in strata[order]], kind="stable")]
    dealt = (np.arange(len(order)) + generator.integers(count)) % count
    return [generator.permutation(order[dealt == b]) for b in generator.permutation(count)]


def shard(batch: np.ndarray, *, rank: int, world: int) -> np.ndarray:
    """The rows of a global batch that one worker takes; sizes differ by one at most."""
    return batch[rank::world]


def micro_batches(
    rows: np.ndarray, *, size: int | None, lengths: np.ndarray, pieces: int = 0
) -> list[np.ndarray]:
    """Cut a worker's rows into pieces of at most `size`, similar lengths together to pad little.

    `pieces`: at least so many, so that workers that share weights make equally many passes.
    """
    if not len(rows):
        return []
    count = max(pieces, 1 if size is None else -(-len(rows) // size))
    if count == 1:
        return [rows]
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    return np.array_split(rows, count)


def by_length(rows: Sequence[int], *, size: int, lengths: np.ndarray) -> list[np.ndarray]:
    """Cut rows into batches for evaluation, sorted by length."""
    return micro_batches(np.asarray(rows, dtype=np.int64), size=size, lengths=lengths)
