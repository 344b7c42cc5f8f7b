"""Perceptrons of a block, one a kind: gated (SwiGLU, GeGLU) and plain (squared ReLU, GELU)."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Model


class Perceptron(nn.Module):
    """down(act(gate(x)) * up(x)) where it is gated (arXiv 2002.05202), else down(act(up(x))); no biases.

    Parameters are named as in Llama and Qwen2 (gated), and as in Nemotron and Arcee (plain).
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.kind = model.mlp.kind
        if model.mlp.is_gated:
            self.gate_proj = nn.Linear(model.hidden_size, model.mlp_intermediate_size, bias=False)
        self.up_proj = nn.Linear(model.hidden_size, model.mlp_intermediate_size, bias=False)
        self.down_proj = nn.Linear(model.mlp_intermediate_size, model.hidden_size, bias=False)

    @property
    def inputs(self) -> list[nn.Linear]:
        """The projections of the input, the gate first."""
        return [self.gate_proj, self.up_proj] if hasattr(self, "gate_proj") else [self.up_proj]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.activated([projection(x) for projection in self.inputs]))
        return out

    def activated(self, parts: list[Tensor]) -> Tensor:
        """What goes into the last projection, of what `inputs` gave."""
        first = parts[0]
        match self.kind:
            case "swiglu":
                return functional.silu(first) * parts[1]
            case "geglu":
                return functional.gelu(first, approximate="tanh") * parts[1]
            case "relu2":
                return torch.relu(first).square()
            case "gelu":
                return functional.gelu(first, approximate="tanh")
