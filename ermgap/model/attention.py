"""Causal attention over packed sequences, with grouped heads and a shared prefix.

Three implementations compute the same. A GPU runs its variable-length kernel over the packed
tokens. A CPU runs rows of equal length: with plain matrix products that keep the scores where
sequences are short (for a hundred tokens PyTorch's fused kernels cost more than the products: 48 ms
against 7 ms forward and backward at 16 sequences in bfloat16 on one core), and with the fused
kernel where they are long.
"""

from __future__ import annotations

import functools
import inspect

import torch
from torch import Tensor
from torch.nn import functional as F

from ermgap.model.packing import BLOCK, Packing

SHORT = 320  # longest row, in tokens, for which the scores are kept


def mix(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
    """Causal self-attention of packed tokens.

    Args:
        query: [K, N, heads, d]. key, value: [K, N, kv, d]. The prefix, if any, comes first.

    Returns:
        [K, N, heads * d].
    """
    prefix = packing.prefix
    halves = (torch.bfloat16, torch.float16)  # what the variable-length kernel takes
    if not prefix and query.is_cuda and query.dtype in halves and _variable_length():
        return _packed(query, key, value, packing, scale)
    own = _rows(query[:, prefix:], packing)
    mixed = _causal(own, _seen(key, packing), _seen(value, packing), scale).flatten(2)
    mixed = mixed.unflatten(0, (query.shape[0], -1)).flatten(1, 2)
    mixed = Unpad.apply(mixed, packing.rows, packing.places, packing.padding)
    if not prefix:
        return mixed
    first = _causal(query[:, :prefix], key[:, :prefix], value[:, :prefix], scale)
    return torch.cat([first.flatten(2), mixed], 1)


def mix_at(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, at: Tensor, scale: float
) -> Tensor:
    """Causal self-attention of packed tokens, for some queries only.

    Args:
        query: [K, B * A, heads, d], of the own tokens `at` [B, A].
        key, value: [K, N, kv, d].

    Returns:
        [K, B * A, heads * d].
    """
    members, key, value = query.shape[0], _seen(key, packing), _seen(value, packing)
    query = query.unflatten(1, at.shape).flatten(0, 1)
    last = packing.prefix + at - packing.starts[:, None]
    visible = torch.arange(key.shape[1], device=at.device) <= last.unsqueeze(-1)
    mixed = _scored(query, key, value, visible.repeat(members, 1, 1), scale)
    return mixed.flatten(2).unflatten(0, (members, -1)).flatten(1, 2)


def _rows(x: Tensor, packing: Packing) -> Tensor:
    """[K, N - P, heads, d] own tokens to rows [K * B, T, heads, d]."""
    padded = Pad.apply(x, packing.rows, packing.places)
    return padded.view(-1, packing.width, *x.shape[2:])


def _seen(x: Tensor, packing: Packing) -> Tensor:
    """Keys or values [K, N, kv, d] to rows [K * B, P + T, kv, d], the prefix before each."""
    prefix, own = packing.prefix, _rows(x[:, packing.prefix :], packing)
    if not prefix:
        return own
    shared = x[:, :prefix].unsqueeze(1).expand(-1, len(packing), -1, -1, -1).flatten(0, 1)
    return torch.cat([shared, own], 1)


def _causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Rows [R, Tq, heads, d] over [R, Tk, kv, d]: query i sees the keys up to Tk - Tq + i."""
    queries, keys = query.shape[1], key.shape[1]
    square = queries == keys
    if query.is_cuda or keys > SHORT:
        mixed = F.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (query, key, value)),
            attn_mask=None if square else _visible(queries, keys, query.device),
            is_causal=square,
            scale=scale,
            enable_gqa=True,
        )
        return mixed.transpose(1, 2)
    return _scored(query, key, value, _visible(queries, keys, query.device)[None], scale)


def _visible(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril_(keys - queries)


def _scored(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v of rows [R, T, heads, d]; visible: bool [1 or R, Tq, Tk]."""
    rows, length, heads, width = query.shape
    shared = key.shape[2]
    group = heads // shared
    query = query.unflatten(2, (shared, group)).permute(0, 2, 3, 1, 4)
    query = query.reshape(rows * shared, group * length, width)
    key, value = (x.transpose(1, 2).reshape(rows * shared, -1, width) for x in (key, value))
    mask = torch.zeros(visible.shape, dtype=query.dtype, device=query.device)
    mask = mask.masked_fill_(~visible, -torch.inf).repeat(1, group, 1)
    mask = mask.repeat_interleave(shared, 0) if len(mask) > 1 else mask.expand(len(query), -1, -1)
    mixed = _Scored.apply(query, key, value, mask, scale)
    mixed = mixed.view(rows, shared, group, length, width).permute(0, 3, 1, 2, 4)
    return mixed.reshape(rows, length, heads, width)


class _Scored(torch.autograd.Function):
    """softmax(scale q k^T + mask) v, [R, Tq, d] over [R, Tk, d]; keeps the weights."""

    @staticmethod
    def forward(ctx, query, key, value, mask, scale):
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scale)
        weights = torch.softmax(scores, -1)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale = scale
        return torch.bmm(weights, value)

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, weights = ctx.saved_tensors
        d_value = torch.bmm(weights.transpose(1, 2), gradient)
        d_weights = torch.bmm(gradient, value.transpose(1, 2))
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_query = torch.bmm(d_scores, key).mul_(ctx.scale)
        d_key = torch.bmm(d_scores.transpose(1, 2), query).mul_(ctx.scale)
        return d_query, d_key, d_value, None, None


class Pad(torch.autograd.Function):
    """Packed tokens [K, N, ...] to rows of equal length [K, B * T, ...].

    `rows` [B * T] is the token of each place, `places` [N] the place of each token. A place of
    padding repeats a token; attention gives it no weight, so its gradient is 0 and is not added.
    """

    @staticmethod
    def forward(ctx, x: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(1, rows)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (places,) = ctx.saved_tensors
        return gradient.index_select(1, places), None, None


class Unpad(torch.autograd.Function):
    """The inverse of `Pad`: places of padding get no gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, rows: Tensor, places: Tensor, padding: Tensor) -> Tensor:
        ctx.save_for_backward(rows, padding)
        return x.index_select(1, places)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        rows, padding = ctx.saved_tensors
        return gradient.index_select(1, rows).index_fill_(1, padding, 0), None, None, None


def _packed(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
    """The variable-length kernel over K copies of the packed sequences."""
    kernel, options = _variable_length()
    members, tokens = query.shape[:2]
    if "enable_gqa" not in options and key.shape[2] != query.shape[2]:
        times = query.shape[2] // key.shape[2]
        key, value = (x.repeat_interleave(times, 2) for x in (key, value))
    bounds = packing.bounds
    if members > 1:
        offsets = torch.arange(members, device=bounds.device, dtype=bounds.dtype) * tokens
        bounds = torch.cat([(bounds[:-1] + offsets[:, None]).flatten(), bounds[-1:] + offsets[-1]])
    longest = max(packing.width, BLOCK)  # the spare tokens are a sequence shorter than a block
    flat = (x.flatten(0, 1) for x in (query, key, value))
    mixed = kernel(*flat, bounds, bounds, longest, longest, scale=scale, **options)
    return mixed.flatten(1).unflatten(0, (members, tokens))


@functools.cache
def _variable_length():
    """torch's varlen attention and its options for causality; None where it takes no scale."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if "scale" not in known:
        return None
    causal = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    return varlen_attn, causal | ({"enable_gqa": True} if "enable_gqa" in known else {})
