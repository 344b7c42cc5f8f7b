"""Next-token loss with the vocabulary projection fused in.

The logits are the largest tensor of a step. Here they exist only a chunk of rows at a time, are turned into their own
gradient in place, and are never kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# float32 logits alive at once, by device (64 MiB, 1 GiB: each chunk reads the whole projection, which a GPU would spend
# its time on). Part of a result's rounding: changing the first changes golden traces.
CHUNK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28}


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sum of next-token losses.

    Args:
        hidden: [N, H], float32 or bfloat16.
        weight: vocabulary projection, float32 or bfloat16 [V, H].
        targets: int64[N].
        scale: weight of each target's loss in the sum, float32[N]; 0 leaves a target out.

    Returns:
        The sum, float32[], and each target's loss in nats whatever its scale, float32[N] (no gradient).
    """
    total, losses = _LinearCrossEntropy.apply(hidden, weight, targets, scale)
    return total, losses


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Loss of each target in nats, float32[N]; arguments as in `linear_cross_entropy`."""
    losses = torch.empty(len(targets), device=hidden.device)
    for rows in _chunks(hidden, len(weight)):
        scores = torch.mm(hidden[rows], weight.to(hidden.dtype).t()).float()
        losses[rows] = -torch.log_softmax(scores, dim=-1).gather(1, targets[rows, None])[:, 0]
    return losses


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        projection = weight.to(hidden.dtype)
        losses = torch.empty_like(scale)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        for rows in _chunks(hidden, len(weight)):
            inputs, wanted, share = hidden[rows], targets[rows, None], scale[rows, None]
            scores = torch.log_softmax(torch.mm(inputs, projection.t()).float(), dim=-1)
            losses[rows] = -scores.gather(1, wanted)[:, 0]
            # d loss / d logits = softmax - one-hot; the row's scale is applied on the narrow side, after the product.
            gradient = scores.exp_().scatter_add_(1, wanted, torch.full_like(share, -1.0)).to(hidden.dtype)
            hidden_gradient[rows] = torch.mm(gradient, projection) * share.to(hidden.dtype)
            weight_gradient += torch.mm(gradient.t(), inputs * share.to(hidden.dtype))
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.mark_non_differentiable(losses)
        return torch.dot(losses, scale), losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * gradients[0], weight_gradient * gradients[0], None, None


def _chunks(hidden: Tensor, width: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS[hidden.device.type] // width)
    return [slice(start, start + size) for start in range(0, len(hidden), size)]
