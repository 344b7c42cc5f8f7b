"""Perceptrons of a block, one a kind: gated (SwiGLU, GeGLU) and plain (squared ReLU, GELU)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Model

_gelu = partial(functional.gelu, approximate="tanh")
# What keeps nothing for a gradient is computed in the place of what it is given.


def _silu(x: Tensor) -> Tensor:
    return functional.silu(x, inplace=not torch.is_grad_enabled())


def _squared_relu(x: Tensor) -> Tensor:
    return torch.relu(x).square() if torch.is_grad_enabled() else x.relu_().square_()


def _times(gate: Tensor, x: Tensor) -> Tensor:
    return gate * x if torch.is_grad_enabled() else gate.mul_(x)


# What goes into the last projection, of what those of the input gave (the gate first).
ACTIVATIONS: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "swiglu": lambda parts: _times(_silu(parts[0]), parts[1]),
    "geglu": lambda parts: _times(_gelu(parts[0]), parts[1]),
    "relu2": lambda parts: _squared_relu(parts[0]),
    "gelu": lambda parts: _gelu(parts[0]),
}


class Perceptron(nn.Module):
    """down(act(gate(x)) * up(x)) where it is gated (arXiv 2002.05202), else down(act(up(x))); no biases.

    Parameters are named as in Llama and Qwen2 (gated), and as in Nemotron and Arcee (plain). `width` is
    ``mlp_intermediate_size`` where it is not given.
    """

    def __init__(self, model: Model, width: int | None = None) -> None:
        super().__init__()
        width = width or model.mlp_intermediate_size
        self.activated = ACTIVATIONS[model.mlp.kind]
        if model.mlp.is_gated:
            self.gate_proj = nn.Linear(model.hidden_size, width, bias=False)
        self.up_proj = nn.Linear(model.hidden_size, width, bias=False)
        self.down_proj = nn.Linear(width, model.hidden_size, bias=False)

    @property
    def inputs(self) -> list[nn.Linear]:
        """The projections of the input, the gate first."""
        return [self.gate_proj, self.up_proj] if hasattr(self, "gate_proj") else [self.up_proj]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.activated([projection(x) for projection in self.inputs]))
        return out
