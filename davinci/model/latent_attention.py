"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values from one narrow vector.

Parameters are named as transformers' DeepseekV3 has them. Shapes: B rows, T tokens, H hidden, heads of D features that
carry no position and R that do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from davinci.config import Model
from davinci.model.attention import Scene, attend
from davinci.model.norm import RMSNorm
from davinci.model.rotary import rotate_part


class LatentAttention(nn.Module):
    """Queries [D + R] a head; keys [D] a head and [R] that all heads share; values [D] a head. The narrow vector is
    normalised before keys and values are made of it, and so is that of the queries where ``query_rank`` asks for one.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.heads, self.head_dim, self.rope_dim = model.attention_heads, model.head_dim, model.latent_rope_dim
        self.rank = model.latent_rank
        wide, narrow = self.heads * (self.head_dim + self.rope_dim), model.attention.query_rank
        if narrow is None:
            self.q_proj = nn.Linear(model.hidden_size, wide, bias=False)
        else:
            self.q_a_proj = nn.Linear(model.hidden_size, narrow, bias=False)
            self.q_a_layernorm = RMSNorm(narrow, model.norm_eps)
            self.q_b_proj = nn.Linear(narrow, wide, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(model.hidden_size, self.rank + self.rope_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(self.rank, model.norm_eps)
        self.kv_b_proj = nn.Linear(self.rank, self.heads * 2 * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, model.hidden_size, bias=False)

    def project(self, x: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys [B, T, heads, D + R], turned, and values [B, T, heads, D], of x [B, T, H]."""
        shape = (*x.shape[:2], self.heads, -1)
        if hasattr(self, "q_proj"):
            queries = self.q_proj(x).view(shape)
        else:
            queries = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).view(shape)
        latent, placed = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope_dim], dim=-1)
        keys, values = self.kv_b_proj(self.kv_a_layernorm(latent)).view(shape).chunk(2, dim=-1)
        placed = rotate_part(placed.unsqueeze(2), cosines, sines).expand(*keys.shape[:3], -1)
        plain, turning = queries.split([self.head_dim, self.rope_dim], dim=-1)
        queries = torch.cat((plain, rotate_part(turning, cosines, sines)), dim=-1)
        return queries, torch.cat((keys, placed), dim=-1), values

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        queries, keys, values = self.project(x, scene.cosines, scene.sines)
        out: Tensor = self.o_proj(attend(queries, keys, values, scene.mask))
        return out
