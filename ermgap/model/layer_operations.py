"""The operations of a decoder layer between its matrix products, with fast gradients.

Each is the textbook operation with a backward pass that reads memory less often. On a CPU a layer
spends as long in these as in its matrix products, and with bfloat16 products three times as long.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LANES = 1 << 16  # dropout compares 16 random bits for each place; a draw of 64 bits serves four


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis; the weight is frozen."""
    if x.is_cuda:
        return F.rms_norm(x, (x.shape[-1],), weight, eps)
    return _RMSNorm.apply(x, weight, eps)


class _RMSNorm(torch.autograd.Function):
    """With r = 1 / sqrt(mean(x^2) + eps): dx = r (g w) - r^3 x mean(x g w).

    The layer-norm kernel, given a mean of 0, computes r (g w - mean(g w)) - r^3 x mean(x g w) in
    one pass; the mean that it subtracts is one matrix-vector product, and is added back.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact).square_()
        inverse = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return torch.mul(x, inverse).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight, inverse = ctx.saved_tensors
        wide, gradient = x.shape[-1], gradient.contiguous()
        full, no_mean = weight.to(inverse.dtype), torch.zeros_like(inverse)
        result, _, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, [wide], no_mean, inverse, full, None, [True, False, False]
        )
        mean = (gradient @ weight).to(inverse.dtype).div_(wide).unsqueeze(-1)
        return result.add_(mean.mul_(inverse).to(result.dtype)), None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of [..., N, heads, d] by cos and sin [N, d] with equal halves."""
    return _Rotate.apply(x, cos.unsqueeze(1), sin.unsqueeze(1))


class _Rotate(torch.autograd.Function):
    """A rotation: its transpose is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out


def keep_mask(shape: tuple[int, ...], rate: float, generator: torch.Generator) -> Tensor:
    """Dropout's mask, bool [*shape]: True with probability 1 - rate (a multiple of 2^-16).

    On a CPU five times as fast as `bernoulli_`.
    """
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    lanes = bits.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
    return (lanes >= round(rate * LANES) - LANES // 2).view(shape)
