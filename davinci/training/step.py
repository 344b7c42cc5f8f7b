"""One optimiser step, and the loss by domain it leaves behind."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from davinci.config import Stage
from davinci.data.tokenizer import END_OF_TEXT_ID
from davinci.model.decoder import Decoder
from davinci.training.distributed import ALONE, Ranks
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


class Objective(nn.Module):
    """The decoder and its loss as one module, which is what a wrapper over several ranks has to see.

    Args:
        decoder: what is trained.
        separator: the token that opens a document, beyond which nothing attends; None where documents are not told
            apart.
    """

    def __init__(self, decoder: Decoder, separator: int | None = None) -> None:
        super().__init__()
        self.decoder, self.separator = decoder, separator

    def forward(self, tokens: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of tokens int64[B, T + 1] weighted by share float32[B, T]: their sum, and each, float32[B * T]."""
        inputs = tokens[:, :-1]
        hidden = self.decoder.hidden(inputs, documents=documents_of(inputs, self.separator)).flatten(0, 1)
        return linear_cross_entropy(hidden, self.decoder.unembedding, tokens[:, 1:].flatten(), share.flatten())


def documents_of(tokens: Tensor, separator: int | None) -> Tensor | None:
    """The number of each token's document in its row, int64[B, T], a `separator` being the first of one; None where
    documents are not told apart."""
    return None if separator is None else (tokens == separator).cumsum(dim=1)


def separator_of(stage: Stage) -> int | None:
    """The token that opens a document in a stage that tells documents apart."""
    return END_OF_TEXT_ID if stage.attention == "documents" else None


# An input of `Objective` that teaches nothing.
EXAMPLE = (torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 1))


@dataclass(frozen=True)
class Outcome:
    """Loss of a step in nats a target, norm of its gradient before clipping; nats, targets and domain of each row.

    All of it is of the whole batch, on every rank.
    """

    loss: float
    gradient_norm: float
    nats: NDArray[np.float64]
    targets: NDArray[np.int64]
    domain: NDArray[np.int64]

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def micro_rows(length: int) -> int:
    """Sequences of `length` tokens that go through the model at once."""
    return max(1, MICRO_TOKENS // length)


def gradients(
    objective: nn.Module, batch: Batch, clip: float, ranks: Ranks = ALONE, size: int | None = None
) -> Outcome:
    """Leave in every parameter the clipped gradient of the whole batch's mean loss over the targets that count.

    Args:
        objective: an `Objective`, wrapped by `ranks`.
        batch: this rank's rows.
        clip: the largest norm of the gradient.
        ranks: who has the other rows.
        size: rows of the whole batch (default: this rank has them all).
    """
    size = len(batch.tokens) if size is None else size
    targets, domain = ranks.interleave(np.stack([batch.loss_mask.sum(axis=1), batch.domain]), size)
    count = int(targets.sum())
    tokens = torch.from_numpy(batch.tokens)
    scale = torch.from_numpy(batch.loss_mask).to(torch.float32) / max(count, 1)
    rows = micro_rows(scale.shape[1])
    nats: list[Tensor] = []
    objective.zero_grad(set_to_none=True)
    for start in range(0, len(tokens), rows):
        part, share = tokens[start : start + rows], scale[start : start + rows]
        is_last = start + rows >= len(tokens)
        with objective.no_sync() if isinstance(objective, DistributedDataParallel) and not is_last else nullcontext():
            total, losses = objective(part, share)
            total.backward()
        nats.append((losses.view(share.shape) * (share > 0)).sum(dim=1, dtype=torch.float64))
    norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), clip, foreach=True)
    row_nats = ranks.interleave(torch.cat(nats).numpy(), size)
    return Outcome(float(row_nats.sum()) / max(count, 1), float(norm), row_nats, targets, domain)


def move(adamw: torch.optim.AdamW, lr: float) -> None:
    """Move the weights along their gradients at learning rate `lr`."""
    for group in adamw.param_groups:
        group["lr"] = lr
    adamw.step()


@dataclass
class Window:
    """Nats and target counts of each domain since the last record."""

    sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, outcome: Outcome, names: list[str]) -> None:
        """Count in a step whose row r is of domain ``names[outcome.domain[r]]``."""
        nats = np.bincount(outcome.domain, weights=outcome.nats, minlength=len(names))
        targets = np.bincount(outcome.domain, weights=outcome.targets, minlength=len(names))
        for name, more, count in zip(names, nats.tolist(), targets.tolist(), strict=True):
            before, seen = self.sums.get(name, (0.0, 0))
            self.sums[name] = (before + more, seen + int(count))

    def losses(self) -> dict[str, float]:
        """``loss`` and ``loss/<domain>`` in nats a target, for the domains that had any."""
        parts = [(name, *self.sums[name]) for name in sorted(self.sums) if self.sums[name][1]]
        count = sum(seen for _, _, seen in parts)
        values = {"loss": sum(nats for _, nats, _ in parts) / count} if count else {}
        return values | {f"loss/{name}": nats / seen for name, nats, seen in parts}
