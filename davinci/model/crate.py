"""CRATE's white-box block (arXiv 2306.01129): attention that compresses tokens against subspaces, and a step that makes
them sparse. Each is a choice of its own; a model with both is CRATE, made causal as a decoder (arXiv 2311.13110).

Shapes: B rows, T tokens, H hidden, heads of D features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Model
from davinci.model.attention import Scene, attend
from davinci.model.rotary import rotate_part

# The step eta and the weight lambda of the sparsity, as in the authors' code.
STEP, SPARSITY = 0.1, 0.1


class SubspaceAttention(nn.Module):
    """Multi-head subspace self-attention (section 2.3): with z_k = U_k^T x in each head, W_o [y_1; …; y_K] where

    y_k = (U_k^T X) softmax((U_k^T X)^T (U_k^T x) / sqrt(D))

    over the tokens up to x, so that queries, keys and values are one projection (only the first two turned by their
    positions). W_o is learned, as in the authors' experiments; the derivation has a multiple of [U_1, …, U_K] there.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.head_dim = model.head_dim
        width = model.attention_heads * model.head_dim
        self.qkv_proj = nn.Linear(model.hidden_size, width, bias=False)
        self.o_proj = nn.Linear(width, model.hidden_size, bias=False)

    def project(self, x: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, T, heads, D] of x [B, T, H]."""
        values = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim))
        turned = rotate_part(values, cosines, sines)
        return turned, turned, values

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        queries, keys, values = self.project(x, scene.cosines, scene.sines)
        out: Tensor = self.o_proj(attend(queries, keys, values, scene.mask))
        return out


class Ista(nn.Module):
    """One step of the iterative shrinkage-thresholding algorithm towards a sparse code of x (section 2.4):

    relu(x + eta D^T (x - D x) - eta lambda), D [H, H] the dictionary. It stands in the place of x, nothing is added to.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(torch.empty(model.hidden_size, model.hidden_size))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Uniform up to sqrt(6 / H), as the authors' code."""
        bound = (6 / len(self.dictionary)) ** 0.5
        self.dictionary.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., H] to the same shape."""
        missing = x - functional.linear(x, self.dictionary)
        return torch.relu(x + STEP * functional.linear(missing, self.dictionary.T) - STEP * SPARSITY)
