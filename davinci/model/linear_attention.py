"""Linear attention (arXiv 2006.16236) whose state decays: the retention of RetNet (arXiv 2307.08621, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Model
from davinci.model.attention import Scene
from davinci.model.recurrence import Recurrent, State, scan, wide
from davinci.model.rotary import rotate_part


class LinearAttention(Recurrent):
    """In each of ``attention_heads``, with queries, keys and values of x and the first two turned by their positions,

    S_t = g S_(t-1) + k_t v_t^T / sqrt(D),  y_t = S_t^T q_t,  out = W_o (silu(W_g x) * norm(y))

    (RetNet, equations 5 to 8): g = 1 - 2^(-5 - h) in head h = 0, 1, …, and norm brings each head's y to root mean
    square 1, as in the authors' torchscale. What RetNet divides scores by besides would be gone after that norm.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.heads, self.head_dim, self.eps = model.attention_heads, model.head_dim, model.norm_eps
        width = self.heads * self.head_dim
        self.q_proj = nn.Linear(model.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(model.hidden_size, width, bias=False)
        self.v_proj = nn.Linear(model.hidden_size, width, bias=False)
        self.g_proj = nn.Linear(model.hidden_size, width, bias=False)
        self.o_proj = nn.Linear(width, model.hidden_size, bias=False)

    @property
    def output(self) -> nn.Linear:
        return self.o_proj

    def mix(self, x: Tensor, scene: Scene, state: State | None) -> tuple[Tensor, State]:
        shape = (*x.shape[:2], self.heads, self.head_dim)
        queries = rotate_part(self.q_proj(x).view(shape), scene.cosines, scene.sines)
        keys = rotate_part(self.k_proj(x).view(shape), scene.cosines, scene.sines)
        values, gate = self.v_proj(x).view(shape), functional.silu(self.g_proj(x))
        decay = torch.log1p(-torch.exp2(-5.0 - torch.arange(self.heads, device=x.device, dtype=wide(x).dtype)))
        with torch.autocast(x.device.type, enabled=False):
            found, after = scan(
                queries,
                keys * self.head_dim**-0.5,
                values,
                decay.expand(shape[:3]),
                None if state is None else state[0],
                scene.documents,
            )
            found = functional.rms_norm(found, (self.head_dim,), eps=self.eps).flatten(2)
        return gate * found.to(gate.dtype), (after,)
