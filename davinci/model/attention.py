"""Softmax attention with grouped heads: MHA, GQA, MQA; normalised queries and keys; a window; rotary, partly or not."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Model
from davinci.model import numpy_products
from davinci.model.norm import RMSNorm
from davinci.model.parametrisation import attention_scale
from davinci.model.rotary import rotate_part


class Scene(NamedTuple):
    """What a block knows of the tokens beside their states.

    `cosines`, `sines` float32[T, 1, R / 2] turn R features of a head. `mask` bool[B or 1, 1, T, T] says what each token
    attends to, None to all before it. `documents` int64[B, T] numbers the documents of a row, None where they are not
    told apart.
    """

    cosines: Tensor
    sines: Tensor
    mask: Tensor | None
    documents: Tensor | None


class Attention(nn.Module):
    """Causal grouped-query attention (arXiv 2305.13245)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.head_dim, self.scale = model.head_dim, attention_scale(model)
        queries, keys = model.attention_heads * model.head_dim, model.key_value_heads * model.head_dim
        self.grouped = queries != keys
        self.q_proj = nn.Linear(model.hidden_size, queries, bias=model.qkv_bias)
        self.k_proj = nn.Linear(model.hidden_size, keys, bias=model.qkv_bias)
        self.v_proj = nn.Linear(model.hidden_size, keys, bias=model.qkv_bias)
        self.o_proj = nn.Linear(queries, model.hidden_size, bias=False)
        is_normed = model.qk_norm.kind == "rms"
        self.q_norm = RMSNorm(model.head_dim, model.norm_eps) if is_normed else None
        self.k_norm = RMSNorm(model.head_dim, model.norm_eps) if is_normed else None

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        heads = (*x.shape[:2], -1, self.head_dim)
        queries, keys = self.q_proj(x).view(heads), self.k_proj(x).view(heads)
        if self.q_norm is not None and self.k_norm is not None:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries = rotate_part(queries, scene.cosines, scene.sines)
        keys = rotate_part(keys, scene.cosines, scene.sines)
        values = self.v_proj(x).view(heads)
        out: Tensor = self.o_proj(attend(queries, keys, values, scene.mask, self.grouped, self.scale))
        return out


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    grouped: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Causal softmax attention of queries, keys [B, T, heads, …] and values [B, T, heads, D] as `mask` says (None: to
    all before), [B, T, heads D]. Where it is `grouped`, several heads of queries share one of keys and values. Scores
    are multiplied by `scale`, by default one over the root of the keys' width."""
    mixed = functional.scaled_dot_product_attention(
        queries.transpose(1, 2).to(values.dtype),
        keys.transpose(1, 2).to(values.dtype),
        values.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=grouped,
    )
    return mixed.transpose(1, 2).flatten(2)


def attend_once(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """The same without a gradient for one token a row, its G heads of queries to each of K in the place of tokens:
    queries [B, K, G, D], keys [B, K, S, D] and values [B, K, S, …] give [B, K, G, …]. `mask` is added to the scores."""
    if not numpy_products.serve(queries):
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    scores = numpy_products.multiply(queries, keys.mT).mul_(queries.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores += mask
    return numpy_products.multiply(scores.softmax(dim=-1), values)


def attended(length: int, window: int | None, documents: Tensor | None, device: torch.device) -> Tensor | None:
    """What each of `length` tokens attends to, bool[B or 1, 1, T, T]; None for all before it.

    With `documents` int64[B, T] earlier ones of the same number, with a `window` no more than so many, itself included.
    """
    if window is not None and window >= length:
        window = None
    if documents is None and window is None:
        return None
    mask = torch.ones(1, length, length, dtype=torch.bool, device=device)
    if documents is not None:
        mask = documents[:, :, None] == documents[:, None, :]
    mask = mask.tril()
    return (mask if window is None else mask.triu(1 - window))[:, None]
