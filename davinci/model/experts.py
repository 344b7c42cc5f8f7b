"""A mixture of experts in the place of a block's perceptron (arXiv 1701.06538; top-k of a softmax: arXiv 2401.04088).

Parameters are named and laid out as transformers' Qwen3Moe has them, so that all experts of a layer are two tensors.
Shapes: N tokens, H hidden, E experts, K chosen, I width of an expert.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Model
from davinci.model.perceptron import ACTIVATIONS, Perceptron


class Experts(nn.Module):
    """Each token goes through the K experts whose router probability is highest, weighted by it, and through the shared
    ones (DeepSeekMoE, arXiv 2401.06066).

    After a forward pass `auxiliary` float32[rows] is the load-balancing loss of each sequence (arXiv 2412.19437,
    equations 17 to 20, without its factor), E sum_e f_e P_e with f_e the share of the sequence's choices that fell on
    expert e, a bias considered, and P_e its mean probability (of sigmoid scores: their share of the token's sum): 1
    where all are used alike. One of a sequence and not of whatever is computed at once, so that it does not depend on
    how a batch is cut. `counts` int64[E] are the choices that fell on each expert.

    With ``bias_rate`` who is chosen is decided by score plus bias, a state of the router that `rebalance` moves and no
    gradient does; weights are made of the scores alone (arXiv 2408.15664, equation 3).
    """

    auxiliary: Tensor
    counts: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        experts = model.experts
        width = model.expert_width
        self.chosen, self.renormalise = experts.chosen, experts.renormalise
        self.gate = nn.Linear(model.hidden_size, experts.count, bias=False)
        self.is_sigmoid, self.bias_rate = experts.scores == "sigmoid", experts.bias_rate
        if experts.bias_rate:  # by the name that transformers' DeepseekV3 has
            self.gate.register_buffer("e_score_correction_bias", torch.zeros(experts.count))
        wide = (2 if model.mlp.is_gated else 1) * width
        self.gate_up_proj = nn.Parameter(torch.empty(experts.count, wide, model.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(experts.count, model.hidden_size, width))
        self.shared_experts = Perceptron(model, experts.shared * width) if experts.shared else None
        self._parts, self._activated = wide // width, ACTIVATIONS[model.mlp.kind]

    @property
    def bias(self) -> Tensor | None:
        """What is added to the scores before the choice, float32[E]; None where nothing is."""
        return getattr(self.gate, "e_score_correction_bias", None)

    @torch.no_grad()
    def rebalance(self, counts: Tensor) -> None:
        """Move the bias, if there is one, by ``bias_rate`` against the `counts` int64[E] of choices of a whole step:
        b_e += rate * sign(mean - c_e) (arXiv 2408.15664, algorithm 1). The sign is found in integers, so that it does
        not depend on who counted what."""
        if self.bias is not None:
            self.bias.add_((counts.sum() - len(counts) * counts).sign(), alpha=self.bias_rate)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., T, H], each [T, H] a sequence, to the same shape."""
        tokens = x.flatten(0, -2)
        # In float32 whatever the precision: ties and tiny differences decide who is chosen (arXiv 2101.03961, 2.4).
        with torch.autocast(x.device.type, enabled=False):
            outputs = functional.linear(tokens.float(), self.gate.weight.float())
            scores = outputs.sigmoid() if self.is_sigmoid else outputs.softmax(dim=-1)
        if self.bias is None:
            weights, chosen = scores.topk(self.chosen, dim=-1)
        else:
            chosen = (scores + self.bias).topk(self.chosen, dim=-1).indices
            weights = scores.gather(-1, chosen)
        probabilities = scores / scores.sum(dim=-1, keepdim=True) if self.is_sigmoid else scores
        if self.renormalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        rows, experts = math.prod(x.shape[:-2]), scores.shape[-1]
        by_row = self._chosen_by_row(chosen.view(rows, -1))
        shares, means = by_row / (chosen.numel() // rows), probabilities.view(rows, -1, experts).mean(dim=1)
        self.auxiliary = experts * (shares * means).sum(dim=1)
        self.counts = counts = by_row.sum(dim=0)
        out = self._mixed(tokens, weights, chosen, counts)
        if self.shared_experts is not None:
            out = out + self.shared_experts(tokens)
        return out.view(x.shape)

    def _chosen_by_row(self, chosen: Tensor) -> Tensor:
        """How often each expert is among the choices int64[rows, .] of a row, int64[rows, E]."""
        rows, experts = len(chosen), len(self.gate.weight)
        first = experts * torch.arange(rows, device=chosen.device)
        return torch.bincount((chosen + first[:, None]).flatten(), minlength=rows * experts).view(rows, experts)

    def _mixed(self, tokens: Tensor, weights: Tensor, chosen: Tensor, counts: Tensor) -> Tensor:
        """What the chosen experts give, tokens ordered by expert so that each computes one product."""
        order = chosen.flatten().argsort(stable=True)
        parts = tokens.index_select(0, order // self.chosen).split(counts.tolist())
        # Taken apart at once: the gradient of a single expert's weights would be as large as that of all.
        experts = zip(parts, self.gate_up_proj.unbind(), self.down_proj.unbind(), strict=True)
        computed = torch.cat([self._expert(part, up, down) for part, up, down in experts if len(part)])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        each = computed.index_select(0, back).view(*chosen.shape, -1)  # [N, K, H]
        return torch.einsum("nkh,nk->nh", each, weights.to(each.dtype))

    def _expert(self, tokens: Tensor, up: Tensor, down: Tensor) -> Tensor:
        parts = functional.linear(tokens, up).chunk(self._parts, dim=-1)
        return functional.linear(self._activated(list(parts)), down)
