"""What a train record says beside the loss: how far the weights moved, how busy the accelerator was, how often each
source was read. docs/instruments.md has the formulas in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from davinci.accounting.accelerators import known_peak
from davinci.accounting.flops import train_flops_per_token
from davinci.config import Node
from davinci.data.cards import read_card
from davinci.model.decoder import Decoder
from davinci.store import Store

# Part of a parameter's name -> kind of layer, first match; whatever else there is are norms.
KINDS = {"embed_tokens": "embedding", "lm_head": "unembedding", "self_attn": "attention", "mlp": "mlp"}


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


class Epochs:
    """Passes over each source's training tokens since initialisation.

    Args:
        node: whose stage's sources are told.
        store: where the pool's card is, with the sources' sizes at the node's depths.
        read: tokens read of each source before `cursors`.
        cursors: draws of each source at that moment.
    """

    def __init__(self, node: Node, store: Store, read: Mapping[str, int], cursors: Mapping[str, int]) -> None:
        card = read_card(store, node.pool)
        variants = {name: card.sources[name].variants[use.depth] for name, use in node.sources.items()} if card else {}
        self._sizes = {name: variant.tokens for name, variant in sorted(variants.items())}
        self._length = node.stage.sequence_length
        self._read, self._cursors = dict(read), dict(cursors)

    def read_at(self, cursors: Mapping[str, int]) -> dict[str, int]:
        """Tokens read of every source, of all depths and sequence lengths, once the draws are `cursors`."""
        return {
            name: self._read.get(name, 0) + self._length * (cursors.get(name, 0) - self._cursors.get(name, 0))
            for name in sorted(self._read.keys() | cursors.keys())
        }

    def at(self, cursors: Mapping[str, int]) -> dict[str, float]:
        """``epochs/<source>``: tokens read over the tokens the source has at this stage's depth."""
        read = self.read_at(cursors)
        return {f"epochs/{name}": round(read.get(name, 0) / size, 6) for name, size in self._sizes.items() if size}
