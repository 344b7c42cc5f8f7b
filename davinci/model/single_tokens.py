"""What takes torch long on a CPU where a text is written token by token, and numpy not.

Shapes: B rows, S tokens that are attended to, K heads of keys and values, G heads of queries to each, N rows of scores,
V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor


def attend_one(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Softmax attention [B, K, G, …] of one token a row: queries [B, K, G, D], keys [B, K, S, D], values [B, K, S, …].

    `mask` is added to the scores, which are multiplied by `scale`, by default one over the root of D.
    """
    if queries.device.type != "cpu" or queries.dtype != torch.float32 or torch.get_num_threads() > 1:
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    # Small matrices, of which numpy's BLAS takes one in a fifth of the time that torch's does; on one thread only.
    with np.errstate(all="ignore"):  # weights that have diverged give NaN without a warning, as with torch
        scores = torch.from_numpy(np.matmul(queries.numpy(), keys.numpy().swapaxes(-1, -2)))
        scores *= queries.shape[-1] ** -0.5 if scale is None else scale
        if mask is not None:
            scores += mask
        return torch.from_numpy(np.matmul(scores.softmax(dim=-1).numpy(), values.numpy()))


def likeliest(logits: Tensor) -> Tensor:
    """int64[N], the first of the highest of scores [N, V]; torch's own takes many times as long on a CPU."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1)
    return torch.from_numpy(logits.numpy().argmax(axis=-1))
