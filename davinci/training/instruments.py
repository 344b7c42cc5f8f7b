"""What a train record says beside the loss: how far the weights moved, how fast training goes, and how busy it keeps
the accelerator. docs/instruments.md has the formulas in one place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from davinci.accounting.accelerators import known_peak
from davinci.accounting.flops import train_flops_per_token
from davinci.config import Node
from davinci.model.decoder import Decoder
from davinci.training.step import Outcome

# Part of a parameter's name -> kind of layer, first match; whatever else there is are norms.
KINDS = {
    "embed_tokens": "embedding",
    "lm_head": "unembedding",
    "self_attn": "attention",
    "linear_attn": "linear_attention",
    "mixer": "ssm",
    "mlp": "mlp",
}


@torch.no_grad()
def update_ratios(model: Decoder, adamw: torch.optim.AdamW) -> dict[str, float]:
    """``update_ratio`` and ``update_ratio/<kind of layer>`` of the step just taken: RMS of the update over RMS of the
    weights before it, all parameters of the kind pooled (biases count with their layer).

    AdamW's update is lr (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + decay w) (arXiv 1711.05101, alg. 2),
    so that it follows from the moments after the step and no copy of the weights is kept. About 1e-3 is usual (CS231n
    notes, "Ratio of weights:updates"). Kinds whose weights are all 0 are left out.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    kinds: list[str] = []
    norms: list[Tensor] = []
    for group in adamw.param_groups:
        beta1, beta2 = group["betas"]
        for parameter in group["params"]:
            state = adamw.state[parameter]
            count = float(state["step"])
            size = (state["exp_avg_sq"] / (1 - beta2**count)).sqrt_().add_(group["eps"])
            update = state["exp_avg"].div(size).mul_(group["lr"] / (1 - beta1**count))
            decay = group["lr"] * group["weight_decay"]
            before = parameter.detach().add(update).div_(1 - decay)
            update.add_(before, alpha=decay)
            kinds.append(next((kind for part, kind in KINDS.items() if part in names[parameter]), "norm"))
            norms += [_norm(update), _norm(before)]
    squares: dict[str, list[float]] = {}
    values = torch.stack(norms).double().square().tolist()
    for kind, moved, weight in zip(kinds, values[::2], values[1::2], strict=True):
        for name in ("update_ratio", f"update_ratio/{kind}"):
            sums = squares.setdefault(name, [0.0, 0.0])
            sums[0] += moved
            sums[1] += weight
    return {name: math.sqrt(moved / weight) for name, (moved, weight) in sorted(squares.items()) if weight > 0}


def _norm(tensor: Tensor) -> Tensor:
    """Euclidean norm, of all ranks' parts where the tensor is spread over them."""
    norm = torch.linalg.vector_norm(tensor)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


@torch.no_grad()
def routing(model: Decoder, outcome: Outcome) -> dict[str, float]:
    """Of a mixture of experts, over a whole step and all its ranks. Of each layer the busiest expert's share of the
    choices over an even one (``router/load_max/<layer>``), the entropy of the shares over that of even ones
    (``router/entropy/<layer>``), the share of experts that no token chose (``router/unused/<layer>``) and the
    load-balancing loss (``router/balance/<layer>``; 1: even). Without a layer in the name, their means over layers.
    ``router/bias_min`` and ``router/bias_max`` are the range of the biases. No token is dropped: experts have no
    capacity. Empty without experts.
    """
    if outcome.loads is None or outcome.balance is None:
        return {}
    shares = outcome.loads.double() / outcome.loads.sum(dim=1, keepdim=True)
    experts = shares.shape[1]
    of_layers = {
        "load_max": experts * shares.amax(dim=1),
        "entropy": -torch.xlogy(shares, shares).sum(dim=1) / math.log(max(experts, 2)),
        "unused": (shares == 0).double().mean(dim=1),
        "balance": outcome.balance.double(),
    }
    values = {f"router/{name}": round(float(one.mean()), 4) for name, one in of_layers.items()}
    if biases := [one.bias for one in model.experts if one.bias is not None]:
        low, high = torch.stack(biases).aminmax()
        values |= {"router/bias_min": float(low), "router/bias_max": float(high)}
    for name, one in of_layers.items():
        values |= {f"router/{name}/{layer}": round(value, 4) for layer, value in enumerate(one.tolist())}
    return values


def utilisation(node: Node, tokens_per_second: float, device: torch.device, world: int) -> dict[str, float]:
    """``mfu``: model FLOP/s over the accelerators' dense bfloat16 peak (PaLM, arXiv 2204.02311, appendix B).

    Empty where the peak is not known: on a CPU, whose nominal peak nothing reaches, and on a card that
    `accounting.accelerators` does not list.
    """
    peak = known_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if peak is None:
        return {}
    flops = train_flops_per_token(node.model, node.vocab_size, node.stage.sequence_length)
    return {"mfu": round(flops * tokens_per_second / (peak * world), 4)}


class Speed:
    """Tokens a second of the steps alone, without what is written between them, and the share of it spent waiting for
    data."""

    def __init__(self) -> None:
        self._tokens, self._seconds, self._waited, self.last = 0, 0.0, 0.0, 0.0

    def add(self, tokens: int, seconds: float, waited: float) -> None:
        self._tokens += tokens
        self._seconds += seconds
        self._waited += waited
        self.last = tokens / seconds

    def rate(self) -> float:
        return self._tokens / self._seconds

    def waiting(self) -> float:
        return self._waited / self._seconds
