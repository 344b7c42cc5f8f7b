"""One optimiser step, and the loss by domain it leaves behind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davinci.model.decoder import Decoder
from davinci.training.loss import linear_cross_entropy

# Tokens that go through the model at once; bounds memory. A function of nothing: gradients are added up in the same
# order on every machine, so that results do not depend on its memory.
MICRO_TOKENS = 2048


class Batch(Protocol):
    """What a step reads: tokens int64[B, T+1], loss_mask bool[B, T] over targets, domain int64[B]."""

    @property
    def tokens(self) -> NDArray[np.int64]: ...
    @property
    def loss_mask(self) -> NDArray[np.bool_]: ...
    @property
    def domain(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Outcome:
    """Loss of a step in nats a target, norm of its gradient before clipping, nats and target counts of each row."""

    loss: float
    gradient_norm: float
    nats: NDArray[np.float64]
    targets: NDArray[np.int64]

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def micro_rows(length: int) -> int:
    """Sequences of `length` tokens that go through the model at once."""
    return max(1, MICRO_TOKENS // length)


def gradients(model: Decoder, batch: Batch, clip: float) -> Outcome:
    """Leave in every parameter the clipped gradient of the batch's mean loss over the targets that count."""
    targets = batch.loss_mask.sum(axis=1)
    count = int(targets.sum())
    tokens = torch.from_numpy(batch.tokens)
    scale = torch.from_numpy(batch.loss_mask).to(torch.float32) / max(count, 1)
    rows = micro_rows(scale.shape[1])
    nats: list[Tensor] = []
    model.zero_grad(set_to_none=True)
    for start in range(0, len(tokens), rows):
        part, share = tokens[start : start + rows], scale[start : start + rows]
        hidden = model.hidden(part[:, :-1]).flatten(0, 1)
        total, losses = linear_cross_entropy(hidden, model.unembedding, part[:, 1:].flatten(), share.flatten())
        total.backward()
        nats.append((losses.view(share.shape) * (share > 0)).sum(dim=1, dtype=torch.float64))
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip, foreach=True)
    row_nats = torch.cat(nats).numpy()
    return Outcome(float(row_nats.sum()) / max(count, 1), float(norm), row_nats, targets)


def move(adamw: torch.optim.AdamW, lr: float) -> None:
    """Move the weights along their gradients at learning rate `lr`."""
    for group in adamw.param_groups:
        group["lr"] = lr
    adamw.step()


@dataclass
class Window:
    """Nats and target counts of each domain since the last record."""

    sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, outcome: Outcome, domain: NDArray[np.int64], names: list[str]) -> None:
        """Count in a step whose row r is of domain ``names[domain[r]]``."""
        nats = np.bincount(domain, weights=outcome.nats, minlength=len(names))
        targets = np.bincount(domain, weights=outcome.targets, minlength=len(names))
        for name, more, count in zip(names, nats.tolist(), targets.tolist(), strict=True):
            before, seen = self.sums.get(name, (0.0, 0))
            self.sums[name] = (before + more, seen + int(count))

    def losses(self) -> dict[str, float]:
        """``loss`` and ``loss/<domain>`` in nats a target, for the domains that had any."""
        parts = [(name, *self.sums[name]) for name in sorted(self.sums) if self.sums[name][1]]
        count = sum(seen for _, _, seen in parts)
        values = {"loss": sum(nats for _, nats, _ in parts) / count} if count else {}
        return values | {f"loss/{name}": nats / seen for name, nats, seen in parts}
