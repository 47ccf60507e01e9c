"""Batches keep both genders of each language; shares of workers and passes add up to them."""

from __future__ import annotations

import numpy as np
import pytest

from ermgap.sampler import by_length, epoch_batches, micro_batches, shard

TABLES = [
    (seed, n, batch)
    for seed, n, batch in zip(
        range(12),
        (1, 5, 32, 33, 97, 200) * 2,
        (4, 5, 32, 8, 7, 16, 1, 2, 31, 32, 97, 64),
        strict=True,
    )
]


def strata_of(seed: int, n: int) -> np.ndarray:
    """Unbalanced strata with gaps in their numbers, in no order."""
    random = np.random.default_rng(seed)
    return random.choice([0, 1, 2, 5, 9], size=n, p=[0.5, 0.25, 0.15, 0.07, 0.03])


@pytest.mark.parametrize(("seed", "n", "batch"), TABLES)
def test_every_utterance_is_in_one_batch_of_an_epoch(seed, n, batch):
    batches = epoch_batches(strata_of(seed, n), batch=batch, seed=seed, epoch=3)
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    sizes = [len(rows) for rows in batches]
    assert len(batches) == -(-n // batch)
    assert max(sizes) <= batch and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("seed", "n", "batch"), TABLES)
def test_a_stratum_is_spread_evenly_and_so_in_every_batch_where_it_can_be(seed, n, batch):
    strata = strata_of(seed, n)
    for epoch in (1, 2, 3):
        batches = epoch_batches(strata, batch=batch, seed=seed, epoch=epoch)
        for name in np.unique(strata):
            counts = [int((strata[rows] == name).sum()) for rows in batches]
            share = (strata == name).sum() / len(batches)
            assert np.floor(share) <= min(counts) and max(counts) <= np.ceil(share)
            if share >= 1:
                assert min(counts) >= 1


def test_batches_are_a_function_of_seed_and_epoch_alone():
    strata = strata_of(0, 60)
    made = {}
    for seed in (0, 1):
        for epoch in (1, 2):
            np.random.seed(seed * 7 + epoch)  # noqa: NPY002  the global state must not matter
            batches = epoch_batches(strata, batch=16, seed=seed, epoch=epoch)
            again = epoch_batches(strata.copy(), batch=16, seed=seed, epoch=epoch)
            assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
            made[seed, epoch] = tuple(tuple(sorted(rows.tolist())) for rows in batches)
    assert len({frozenset(batches) for batches in made.values()}) == 4


def test_the_rows_of_a_rare_stratum_change_batch_and_place_over_epochs():
    strata = np.array([0] * 30 + [1, 1])
    batches, places = set(), set()
    for epoch in range(1, 40):
        for number, rows in enumerate(epoch_batches(strata, batch=8, seed=0, epoch=epoch)):
            if 31 in rows:
                batches.add(number)
                places.add(rows.tolist().index(31))
    assert batches == set(range(4)) and len(places) >= 7


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_workers_shards_cover_a_batch_evenly(world):
    for n in range(9):
        rows = np.arange(100, 100 + n)
        shards = [shard(rows, rank=rank, world=world) for rank in range(world)]
        assert sorted(np.concatenate(shards).tolist()) == rows.tolist()
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("size", [None, 1, 3, 7, 50])
def test_micro_batches_cover_a_shard_within_their_size(size):
    lengths = np.random.default_rng(0).integers(1, 90, size=40)
    for n in (0, 1, 6, 7, 20):
        rows = np.random.default_rng(n).permutation(40)[:n]
        pieces = micro_batches(rows, size=size, lengths=lengths)
        assert sorted(np.concatenate([*pieces, []]).tolist()) == sorted(rows.tolist())
        assert all(0 < len(piece) <= (size or 40) for piece in pieces)
        if size:
            assert len(pieces) == -(-n // size)


def test_pieces_of_a_cut_hold_similar_lengths():
    lengths = np.random.default_rng(0).permutation(40)
    for cut in (micro_batches, by_length):
        pieces = cut(np.arange(40), size=8, lengths=lengths)
        spans = [(lengths[piece].min(), lengths[piece].max()) for piece in pieces]
        assert all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False))
