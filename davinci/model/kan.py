"""Kolmogorov-Arnold networks in the place of a block's perceptron: functions are learned on edges, not on nodes.

KAN (arXiv 2404.19756, section 2.2) with Gaussian bumps for its splines (FastKAN, arXiv 2405.06721).
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Model

# Where the outermost centres are; what is given to them has variance 1.
RANGE = 2.0


class Kan(nn.Module):
    """Two layers of functions, ``mlp_intermediate_size`` features between them."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        width, centres = model.mlp_intermediate_size, model.mlp.centres
        self.up_proj = KanLayer(model.hidden_size, width, centres, model.norm_eps)
        self.down_proj = KanLayer(width, model.hidden_size, centres, model.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.up_proj(x))
        return out


class KanLayer(nn.Module):
    """y_i = sum_j f_ij(x_j) with f_ij(x_j) = b_ij silu(x_j) + sum_k w_ijk exp(-((n_j - c_k) / h)^2).

    n is x at mean 0 and variance 1 (LayerNorm without gain and bias), c_k are `centres` points evenly over [-2, 2] and
    h is how far they stand apart. `base` has the b_ij, `bumps` the w_ijk, k the fastest.
    """

    def __init__(self, inputs: int, outputs: int, centres: int, eps: float) -> None:
        super().__init__()
        self.centres, self.eps = centres, eps
        self.base = nn.Linear(inputs, outputs, bias=False)
        self.bumps = nn.Linear(inputs * centres, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] to [..., outputs]."""
        spread = functional.layer_norm(x, x.shape[-1:], eps=self.eps)
        centres = torch.linspace(-RANGE, RANGE, self.centres, device=x.device)
        distances = (spread.unsqueeze(-1) - centres) * ((self.centres - 1) / (2 * RANGE))
        bumps = distances.square().neg().exp().to(x.dtype).flatten(-2)
        out: Tensor = self.base(functional.silu(x)) + self.bumps(bumps)
        return out
