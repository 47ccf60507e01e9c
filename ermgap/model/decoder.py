"""A frozen Qwen2 decoder over packed sequences, with K adapters, read at some positions.

The arithmetic is that of `transformers`' `Qwen2Model` (in float64 equal to 1e-9 in the tests,
gradients too) without unnecessary work: padding, the last layer at positions that are not read, and
a prefix that several sequences share.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ermgap.model.attention import mix, mix_at
from ermgap.model.fsdp import through
from ermgap.model.layer_operations import rms_norm, rotate
from ermgap.model.lora import StackedAdapters, adapted
from ermgap.model.packing import Packing

LAYERS = "model.language_model.layers"
INPUTS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def decode_at(
    decoder: nn.Module,
    hidden: Tensor,
    packing: Packing,
    at: Tensor,
    *,
    stack: StackedAdapters | None = None,
    recompute: bool = False,
) -> Tensor:
    """Run a `Qwen2Model` over packed embeddings; its last layer at some positions only.

    Nothing after the last layer's keys and values depends on other positions, so its queries, its
    output projection and its MLP run at `at` alone: exact, and half the work of two layers.

    Args:
        hidden: embeddings [K, N, H]; N tokens packed as `packing` says.
        at: [B, A] int64, the own tokens (those after the prefix) to read in each of B sequences.
        stack: the K adapters, if any.
        recompute: keep only each layer's input and compute the rest again in the backward pass.

    Returns:
        [K, B, A, H] after the final norm.
    """
    cos, sin = (each[0] for each in decoder.rotary_emb(hidden, packing.place.unsqueeze(0)))
    *first, last = decoder.layers
    tokens = hidden.shape[1]
    for i, layer in enumerate(first):
        run = _Layer(layer, f"{LAYERS}.{i}", stack, packing, cos, sin)
        masks = run.masks(tokens, tokens)
        hidden = through(layer, run.recomputed if recompute else run, hidden, masks)
    run = _Layer(last, f"{LAYERS}.{len(first)}", stack, packing, cos, sin)
    masks = run.masks(tokens, at.numel())
    return _norm(decoder.norm, through(last, run.at, hidden, at, masks))


class _Layer:
    """A decoder layer over packed tokens."""

    def __init__(self, layer, path: str, stack, packing: Packing, cos: Tensor, sin: Tensor) -> None:
        self.layer, self.stack, self.packing = layer, stack, packing
        self.cos, self.sin = cos, sin
        attention, mlp = ("self_attn", layer.self_attn), ("mlp", layer.mlp)
        self.modules = {
            name: (f"{path}.{part}.{name}", getattr(module, name))
            for (part, module), names in zip((attention, attention, mlp, mlp), INPUTS, strict=True)
            for name in names
        }

    def masks(self, tokens: int, read: int) -> list[Tensor | None]:
        """Dropout masks of the four inputs, drawn beforehand so that a recomputation has the same.

        The first input has all `tokens`, the others the `read` tokens that the layer returns.
        """
        masks = []
        for names, length in zip(INPUTS, (tokens, read, read, read), strict=True):
            paths = [self.modules[name][0] for name in names]
            used = self.stack is not None and any(path in self.stack.first for path in paths)
            wide = self.modules[names[0]][1].in_features
            masks.append(self.stack.mask(length, wide) if used else None)
        return masks

    def __call__(self, hidden: Tensor, masks: list[Tensor | None]) -> Tensor:
        """[K, N, H] to [K, N, H]."""
        normed = _norm(self.layer.input_layernorm, hidden)
        query, key, value = self.linear(INPUTS[0], normed, _dropped(normed, masks[0]))
        query, key = (rotate(self.heads(x), self.cos, self.sin) for x in (query, key))
        scale = self.layer.self_attn.scaling
        return self.rest(hidden, mix(query, key, self.heads(value), self.packing, scale), masks)

    def recomputed(self, hidden: Tensor, masks: list[Tensor | None]) -> Tensor:
        """The same, keeping only the input for the backward pass, which computes the rest again."""
        if not torch.is_grad_enabled():
            return self(hidden, masks)
        return checkpoint(self, hidden, masks, use_reentrant=False, preserve_rng_state=False)

    def at(self, hidden: Tensor, at: Tensor, masks: list[Tensor | None]) -> Tensor:
        """[K, N, H] to [K, B, A, H]: the layer's output at the own tokens `at` [B, A] alone."""
        read = at.flatten() + self.packing.prefix
        normed = _norm(self.layer.input_layernorm, hidden)
        dropped = _dropped(normed, masks[0])
        key, value = self.linear(("k_proj", "v_proj"), normed, dropped)
        inputs = [None if x is None else x.index_select(1, read) for x in (normed, dropped)]
        (query,) = self.linear(("q_proj",), *inputs)
        query = rotate(self.heads(query), self.cos[read], self.sin[read])
        key = rotate(self.heads(key), self.cos, self.sin)
        scale = self.layer.self_attn.scaling
        mixed = mix_at(query, key, self.heads(value), self.packing, at, scale)
        return self.rest(hidden.index_select(1, read), mixed, masks).unflatten(1, at.shape)

    def rest(self, hidden: Tensor, mixed: Tensor, masks: list[Tensor | None]) -> Tensor:
        """What follows attention: the output projection and the MLP, each added to its input."""
        (out,) = self.linear(INPUTS[1], mixed, _dropped(mixed, masks[1]))
        hidden = hidden + out
        normed = _norm(self.layer.post_attention_layernorm, hidden)
        gate, up = self.linear(INPUTS[2], normed, _dropped(normed, masks[2]))
        inner = self.layer.mlp.act_fn(gate) * up
        (out,) = self.linear(INPUTS[3], inner, _dropped(inner, masks[3]))
        return hidden + out

    def linear(self, names: tuple[str, ...], x: Tensor, dropped: Tensor | None) -> list[Tensor]:
        """Outputs of the named modules, which share the input x, with their adapters."""
        return adapted(self.stack, dict(self.modules[name] for name in names), x, dropped)

    def heads(self, x: Tensor) -> Tensor:
        """[K, N, heads * d] to [K, N, heads, d]."""
        return x.unflatten(-1, (-1, self.layer.self_attn.head_dim))


def _norm(norm: nn.Module, hidden: Tensor) -> Tensor:
    return rms_norm(hidden, norm.weight, norm.variance_epsilon)


def _dropped(x: Tensor, mask: Tensor | None) -> Tensor | None:
    return None if mask is None else x * mask
