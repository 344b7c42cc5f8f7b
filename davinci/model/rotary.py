"""Rotary position embedding (arXiv 2104.09864), in the half-split layout of Qwen2 and Llama weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from davinci.config import RopeScaling


def angles(head_dim: int, positions: int, theta: float, scaling: RopeScaling | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32[positions, head_dim / 2], of position p times theta^(-2i / head_dim), perhaps
    slowed."""
    # Float64 until the end: at position 4096 a float32 angle is off in the fourth digit.
    speeds = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    table = torch.arange(positions, dtype=torch.float64)[:, None] * slowed(speeds, scaling)
    return table.cos().float(), table.sin().float()


def slowed(speeds: Tensor, scaling: RopeScaling | None) -> Tensor:
    """Angles a token float64[.], as Llama 3.1's reference code scales them. With w the tokens of a whole turn, L those
    trained on first, and l, h the two factors: (1 - s) speed / factor + s speed, s = (L / w - l) / (h - l) between 0
    and 1."""
    if scaling is None:
        return speeds
    turns = scaling.original_max_position_embeddings * speeds / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * speeds / scaling.factor + kept * speeds


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate feature pairs (i, i + D/2) of x [..., D] by angles whose cosines and sines broadcast to [..., D/2]."""
    if torch.compiler.is_compiling():  # which fuses this, and what is around it
        first, second = x.chunk(2, dim=-1)
        parts = (first * cosines - second * sines, second * cosines + first * sines)
        return torch.cat(parts, dim=-1).to(x.dtype)
    if not torch.is_grad_enabled():
        return _turn(x, cosines, sines, 1.0)
    turned: Tensor = _Rotate.apply(x, cosines, sines)
    return turned


def rotate_part(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the first features of x [..., D], as many as there are angles for; the others, or all, stay."""
    turned = 2 * cosines.shape[-1]
    if turned == x.shape[-1]:
        return rotate(x, cosines, sines)
    if turned == 0:
        return x
    return torch.cat((rotate(x[..., :turned], cosines, sines), x[..., turned:]), dim=-1)


def side_by_side(head_dim: int, rotary_dim: int) -> Tensor:
    """An order of a head's features, int64[head_dim], in which those that `rotate_part` turns together are neighbours."""
    order = torch.arange(head_dim)
    order[:rotary_dim] = order[:rotary_dim].view(2, -1).T.flatten()
    return order


def rotate_neighbours_(x: Tensor, turns: Tensor) -> None:
    """`rotate_part` of features in the order `side_by_side`, in place: each pair of float32 x [..., D] as a complex
    number times complex64 `turns`, cosine and sine, which broadcast to [..., R / 2]."""
    turned = x[..., : 2 * turns.shape[-1]]
    # A complex number cannot begin at an odd place, as every other head of odd width does.
    pairs = turned if x.shape[-1] % 2 == 0 else turned.contiguous()
    torch.view_as_complex(pairs.unflatten(-1, (-1, 2))).mul_(turns)
    if pairs is not turned:
        turned.copy_(pairs)


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the rotation back: nothing of x is kept, and no zero-filled slices are added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turn(x, cosines, sines, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _turn(gradients[0], cosines, sines, -1.0), None, None


def _turn(x: Tensor, cosines: Tensor, sines: Tensor, direction: float) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    first, second = x.chunk(2, dim=-1)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, cosines, out=out_first).addcmul_(second, sines, value=-direction)
    torch.mul(second, cosines, out=out_second).addcmul_(first, sines, value=direction)
    return out
