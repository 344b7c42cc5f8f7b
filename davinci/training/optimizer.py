"""AdamW over a decoder, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from davinci import config
from davinci.model.decoder import Decoder
from davinci.model.parametrisation import learning_rate_factor

_MOMENTS = ("exp_avg", "exp_avg_sq")


def build(model: Decoder, optimizer: config.Optimizer) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices (embeddings included), none on norms and biases.

    The learning rate is set before each step, to ``lr_factor`` times it in each group: under muP the matrices of the
    blocks have a lower one, and so much more decay that their product stays. The fused kernel is three times as fast
    as the others on a CPU and as deterministic.
    """
    matrices: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            matrices.setdefault(learning_rate_factor(name, model.config), []).append(parameter)
    groups = [
        {"params": alike, "weight_decay": optimizer.weight_decay / factor, "lr_factor": factor}
        for factor, alike in matrices.items()
    ]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups.append({"params": vectors, "weight_decay": 0.0, "lr_factor": 1.0})
    return torch.optim.AdamW(groups, lr=0.0, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps, fused=True)


def state_tensors(model: nn.Module, adamw: torch.optim.AdamW) -> dict[str, Tensor]:
    """Moments as ``exp_avg.<parameter>`` and ``exp_avg_sq.<parameter>``, and ``step``; empty before the first step."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        state = adamw.state.get(parameter)
        if state:
            tensors |= {f"{moment}.{name}": state[moment] for moment in _MOMENTS}
            tensors["step"] = state["step"]  # one count for all: every step moves every parameter
    return tensors


def empty_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Tensors of the names and shapes that `state_tensors` gives after a step, in its order."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors |= {f"{moment}.{name}": torch.empty_like(parameter, requires_grad=False) for moment in _MOMENTS}
        tensors["step"] = torch.empty(())
    return tensors


def _keys(name: str) -> dict[str, str]:
    """Where `state_tensors` has each part of a parameter's state."""
    return {moment: f"{moment}.{name}" for moment in _MOMENTS} | {"step": "step"}


def load_state_tensors(model: nn.Module, adamw: torch.optim.AdamW, tensors: Mapping[str, Tensor]) -> None:
    """Restore what `state_tensors` gave; KeyError where a parameter's moments are missing."""
    if not tensors:
        return
    for name, parameter in model.named_parameters():
        # Cloned: tensors mapped from a file are not aligned as torch aligns its own.
        state = {part: tensors[key].to(parameter.device).clone() for part, key in _keys(name).items()}
        adamw.state[parameter] = state
