"""The state-space mixer of Mamba-2 (arXiv 2405.21060, section 7.1), with one group of B and C for all heads.

Parameters are named and laid out as transformers' Mamba2Mixer has them.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from davinci.config import Model
from davinci.model.attention import Scene
from davinci.model.norm import RMSNorm
from davinci.model.recurrence import Recurrent, State, scan, wide

# Steps and decays at initialisation, as the authors' mamba_ssm has them: log-uniform, and uniform.
STEPS = (1e-3, 1e-1)
DECAYS = (1.0, 16.0)


class StateSpace(Recurrent):
    """With gate z, x, B, C and step d of the input; x, B and C through a short causal convolution and SiLU; in a head

    S_t = exp(-exp(A_log) d_t) S_(t-1) + B_t (d_t x_t)^T,  y_t = S_t^T C_t + D x_t,  d = softplus(d + dt_bias)

    and then out_proj(norm(y * silu(z))). Its state holds besides S the last inputs of the convolution.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.heads, self.head_dim, self.features = model.state_heads, model.head_dim, model.mixers.state
        self.width = self.heads * self.head_dim
        self.in_proj = nn.Linear(model.hidden_size, self.width + model.convolved + self.heads, bias=False)
        self.conv1d = nn.Conv1d(model.convolved, model.convolved, model.mixers.convolution, groups=model.convolved)
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads))
        self.D = nn.Parameter(torch.empty(self.heads))
        self.norm = RMSNorm(self.width, model.norm_eps)
        self.out_proj = nn.Linear(self.width, model.hidden_size, bias=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Steps, decays and convolution as mamba_ssm starts them, the latter as torch starts any: uniform up to
        1 / sqrt(taps)."""
        low, high = (math.log(one) for one in STEPS)
        steps = torch.rand(self.heads, generator=generator).mul_(high - low).add_(low).exp_()
        self.dt_bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
        self.A_log.uniform_(*DECAYS, generator=generator).log_()
        self.D.fill_(1.0)
        bound = self.conv1d.kernel_size[0] ** -0.5
        self.conv1d.weight.uniform_(-bound, bound, generator=generator)

    @property
    def output(self) -> nn.Linear:
        return self.out_proj

    def mix(self, x: Tensor, scene: Scene, state: State | None) -> tuple[Tensor, State]:
        gate, inputs, steps = self.in_proj(x).split([self.width, self.conv1d.in_channels, self.heads], dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            convolved, last = self._convolved(wide(inputs), scene.documents, None if state is None else state[1])
            values, keys, queries = convolved.split([self.width, self.features, self.features], dim=-1)
            values = values.unflatten(-1, (self.heads, self.head_dim))
            steps = functional.softplus(wide(steps) + self.dt_bias)
            found, after = scan(
                queries.unsqueeze(2),
                keys.unsqueeze(2),
                values * steps.unsqueeze(-1),
                -wide(self.A_log).exp() * steps,
                None if state is None else state[0],
                scene.documents,
            )
            found = (found + self.D[:, None] * values).flatten(2)
            found = self.norm(found * functional.silu(wide(gate)))
        return found.to(gate.dtype), (after, last)

    def _convolved(self, inputs: Tensor, documents: Tensor | None, last: Tensor | None) -> tuple[Tensor, Tensor]:
        """SiLU of the convolution over inputs [B, T, C] that come after `last` [B, taps - 1, C], within documents; and
        the last of them."""
        weight = wide(self.conv1d.weight.squeeze(1))  # [C, taps], the newest last
        count, taps = inputs.shape[1], weight.shape[1]
        if last is None:
            last = inputs.new_zeros(len(inputs), taps - 1, inputs.shape[2])
        padded = torch.cat((last, inputs), dim=1)
        total = weight[:, -1] * inputs + cast(Tensor, self.conv1d.bias)
        for back in range(1, taps):
            earlier = padded[:, taps - 1 - back : taps - 1 - back + count]
            if documents is not None:
                same = documents == functional.pad(documents, (back, 0))[:, :count]
                earlier = earlier * same.unsqueeze(-1)
            total = total + weight[:, -1 - back] * earlier
        return functional.silu(total), padded[:, count:]
