"""A mixture of experts in the place of a block's perceptron (arXiv 1701.06538; top-k of a softmax: arXiv 2401.04088).

Parameters are named and laid out as transformers' Qwen3Moe has them, so that all experts of a layer are two tensors.
Shapes: N tokens, H hidden, E experts, K chosen, I width of an expert.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Model
from davinci.model.perceptron import ACTIVATIONS, Perceptron


class Experts(nn.Module):
    """Each token goes through the K experts whose router probability is highest, weighted by it, and through the shared
    ones (DeepSeekMoE, arXiv 2401.06066).

    After a forward pass `auxiliary` float32[] is the load-balancing loss of Switch Transformer (arXiv 2101.03961,
    equations 4 to 6), E sum_e f_e P_e with f_e the share of choices that fell on expert e and P_e its mean
    probability: 1 where all are used alike. `load` float32[E] are the f_e.
    """

    auxiliary: Tensor
    load: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        experts = model.experts
        width = model.expert_width
        self.chosen, self.renormalise = experts.chosen, experts.renormalise
        self.gate = nn.Linear(model.hidden_size, experts.count, bias=False)
        wide = (2 if model.mlp.is_gated else 1) * width
        self.gate_up_proj = nn.Parameter(torch.empty(experts.count, wide, model.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(experts.count, model.hidden_size, width))
        self.shared_experts = Perceptron(model, experts.shared * width) if experts.shared else None
        self._parts, self._activated = wide // width, ACTIVATIONS[model.mlp.kind]

    def forward(self, x: Tensor) -> Tensor:
        """x [..., H] to the same shape."""
        tokens = x.flatten(0, -2)
        # In float32 whatever the precision: ties and tiny differences decide who is chosen (arXiv 2101.03961, 2.4).
        with torch.autocast(x.device.type, enabled=False):
            probabilities = functional.linear(tokens.float(), self.gate.weight.float()).softmax(dim=-1)
        weights, chosen = probabilities.topk(self.chosen, dim=-1)
        if self.renormalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        counts = torch.bincount(chosen.flatten(), minlength=probabilities.shape[-1])
        self.load = counts / chosen.numel()
        self.auxiliary = len(counts) * (self.load * probabilities.mean(dim=0)).sum()
        out = self._mixed(tokens, weights, chosen, counts)
        if self.shared_experts is not None:
            out = out + self.shared_experts(tokens)
        return out.view(x.shape)

    def _mixed(self, tokens: Tensor, weights: Tensor, chosen: Tensor, counts: Tensor) -> Tensor:
        """What the chosen experts give, tokens ordered by expert so that each computes one product."""
        order = chosen.flatten().argsort(stable=True)
        parts = tokens[order // self.chosen].split(counts.tolist())
        computed = torch.cat([self._expert(number, part) for number, part in enumerate(parts) if len(part)])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        each = computed[back].view(*chosen.shape, -1)  # [N, K, H]
        return torch.einsum("nkh,nk->nh", each, weights.to(each.dtype))

    def _expert(self, number: int, tokens: Tensor) -> Tensor:
        parts = functional.linear(tokens, self.gate_up_proj[number]).chunk(self._parts, dim=-1)
        return functional.linear(self._activated(list(parts)), self.down_proj[number])
