"""Packed sequences: each token has its place, attention sees its own past, little is spare."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ermgap.model import attention
from ermgap.model.packing import BLOCK, Packing

LENGTHS = {
    "one": [5],
    "a whole block": [40, 24],
    "one over a block": [64, 1],
    "many": np.random.default_rng(0).integers(1, 90, 17).tolist(),
}


@pytest.fixture(params=LENGTHS)
def lengths(request):
    return np.array(LENGTHS[request.param], dtype=np.int64)


@pytest.mark.parametrize("prefix", [0, 3])
def test_rows_and_places_are_inverse_and_spare_tokens_only_fill_the_block(lengths, prefix):
    packing = Packing.of(lengths, prefix=prefix)
    own, total = int(lengths.sum()), len(packing.place)
    assert total % BLOCK == 0 and 0 <= total - prefix - own < BLOCK
    assert torch.equal(packing.rows[packing.places[:own]], torch.arange(own))
    assert set(packing.places[own:].tolist()) <= set(packing.padding.tolist())
    assert len(packing.padding) == packing.width * len(lengths) - own
    assert packing.place[:prefix].tolist() == list(range(prefix))
    for start, length in zip(packing.starts, lengths, strict=True):
        row = packing.rows.view(len(lengths), -1)[packing.starts.tolist().index(start)]
        assert row[:length].tolist() == list(range(start, start + length))
        assert packing.place[prefix + start : prefix + start + length].tolist() == list(
            range(prefix, prefix + length)
        )
    bounds = packing.bounds.tolist()
    assert bounds[: len(lengths) + 1] == [0, *np.cumsum(lengths)] and bounds[-1] == total - prefix


@pytest.mark.parametrize("short", [0, 1000])
@pytest.mark.parametrize("prefix", [0, 3])
def test_attention_is_that_of_each_sequence_alone_and_spare_tokens_get_no_gradient(
    lengths, prefix, short, monkeypatch
):
    """Two members, grouped heads, float64; the reference is PyTorch's attention, one at a time."""
    monkeypatch.setattr(attention, "SHORT", short)
    packing, random = Packing.of(lengths, prefix=prefix), torch.Generator().manual_seed(1)
    tokens = len(packing.place)

    def draw(heads: int):
        made = torch.randn(2, tokens, heads, 8, dtype=torch.float64, generator=random)
        return made.requires_grad_()

    query, key, value = draw(6), draw(2), draw(2)
    found = attention.mix(query, key, value, packing, 0.3)
    pieces = [range(prefix)] * (prefix > 0)
    for start, length in zip(packing.starts.tolist(), lengths, strict=True):
        own = range(prefix + start, prefix + start + length)
        pieces.append([*range(prefix), *own])
    wanted, kept = [], []
    for i, piece in enumerate(pieces):
        q, k, v = (x[:, list(piece)].transpose(1, 2) for x in (query, key, value))
        alone = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=0.3, enable_gqa=True
        ).transpose(1, 2)
        after = 0 if i == 0 and prefix else prefix
        wanted.append(alone[:, after:].flatten(2))
        kept += list(piece)[after:]
    wanted, found = torch.cat(wanted, 1), found[:, kept]
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-12)
    weights = torch.randn(wanted.shape, dtype=torch.float64, generator=random)
    mine = torch.autograd.grad((weights * found).sum(), (query, key, value))
    theirs = torch.autograd.grad((weights * wanted).sum(), (query, key, value))
    spare = sorted(set(range(tokens)) - set(kept))
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
        assert torch.equal(one[:, spare], torch.zeros_like(one[:, spare]))


def test_under_five_percent_of_a_batch_of_speech_is_padding():
    """Batches of 64 at MELD's lengths: lognormal, mean 3.6 s, 5 % over 9 s; 25 tokens a second."""
    random = np.random.default_rng(0)
    seconds = random.lognormal(0.97, 0.78, size=(50, 64)).clip(0.3, 30)
    shares = []
    for batch in seconds:
        lengths = (55 + 25 * batch).astype(np.int64)
        shares.append(1 - lengths.sum() / len(Packing.of(lengths).place))
    assert max(shares) < 0.05 and np.mean(shares) > 0
