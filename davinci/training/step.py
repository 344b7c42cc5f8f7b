"""One optimiser step, and the loss by domain it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from davinci.config import Node
from davinci.model.decoder import Decoder
from davinci.model.experts import Experts
from davinci.training.distributed import ALONE, Ranks
from davinci.training.fsdp import synchronised, whole
from davinci.training.loss import linear_cross_entropy, token_losses

# Tokens that go through the model at once where nothing else is asked for; bounds memory. A function of nothing:
# gradients are added up in the same order on every machine, so that results do not depend on its memory.
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

    def forward(self, tokens: Tensor, share: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Losses of tokens int64[B, T + 1] weighted by share float32[B, T]: their sum, and each, float32[B * T].

        Without `share`, and without gradients, their plain sum and each.
        """
        inputs = tokens[:, :-1]
        hidden = self.decoder.hidden(inputs, documents=documents_of(inputs, self.separator)).flatten(0, 1)
        targets = tokens[:, 1:].flatten()
        if share is None:
            losses = token_losses(hidden, self.decoder.unembedding, targets)
            return losses.sum(), losses
        total, losses = linear_cross_entropy(hidden, self.decoder.unembedding, targets, share.flatten())
        if experts := self.decoder.experts:
            total = total + self.decoder.config.experts.balance * balance(experts, share).mean()
        return total, losses


def balance(experts: Sequence[Experts], share: Tensor) -> Tensor:
    """The balancing loss of each layer, float32[layers], over sequences with share float32[B, T] of the batch's mean:
    each counts as its targets do, so that the micro-batches and ranks of a step add up to one mean, however it is
    cut."""
    return torch.stack([one.auxiliary for one in experts]) @ share.sum(dim=1)


def documents_of(tokens: Tensor, separator: int | None) -> Tensor | None:
    """The number of each token's document in its row, int64[B, T], a `separator` being the first of one; None where
    documents are not told apart."""
    return None if separator is None else (tokens == separator).cumsum(dim=1)


def separator_of(node: Node) -> int | None:
    """The token that opens a document in a node that tells documents apart."""
    return node.end_of_text if node.stage.attention == "documents" else None


# An input of `Objective` that teaches nothing.
EXAMPLE = (torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 1))


@dataclass(frozen=True)
class Outcome:
    """What a step did: loss in nats a target, norm of its gradient before clipping; nats, targets and domain of each
    row of the whole batch.

    `mine`, the nats of this rank's rows float64[.], and `norm` float32[] stay on their device until something read from
    them is asked for, for which a GPU has to finish the step. Then every rank has to ask. `routed` int64[layers, E] are
    the choices of experts that this rank's tokens made, `balanced` float32[layers] its part of their balancing loss;
    None without experts.
    """

    mine: Tensor
    norm: Tensor
    targets: NDArray[np.int64]
    domain: NDArray[np.int64]
    ranks: Ranks = ALONE
    routed: Tensor | None = None
    balanced: Tensor | None = None

    @cached_property
    def loads(self) -> Tensor | None:
        """The choices that fell on each expert in the whole batch, int64[layers, E]; every rank has to ask."""
        return None if self.routed is None else self.ranks.total(self.routed)

    @cached_property
    def balance(self) -> Tensor | None:
        """The balancing loss of each layer over the whole batch, float32[layers]; every rank has to ask."""
        return None if self.balanced is None else self.ranks.total(self.balanced)

    @cached_property
    def nats(self) -> NDArray[np.float64]:
        return self.ranks.interleave(self.mine.cpu().numpy(), len(self.targets))

    @cached_property
    def loss(self) -> float:
        return float(self.nats.sum()) / max(int(self.targets.sum()), 1)

    @cached_property
    def gradient_norm(self) -> float:
        return float(self.norm)

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def micro_rows(length: int, micro_tokens: int = MICRO_TOKENS) -> int:
    """Sequences of `length` tokens that go through the model at once."""
    return max(1, micro_tokens // length)


def gradients(
    objective: nn.Module,
    batch: Batch,
    clip: float,
    ranks: Ranks = ALONE,
    size: int | None = None,
    micro_tokens: int = MICRO_TOKENS,
) -> Outcome:
    """Leave in every parameter the clipped gradient of the whole batch's mean loss over the targets that count.

    Args:
        objective: an `Objective`, perhaps wrapped over the ranks.
        batch: this rank's rows.
        clip: the largest norm of the gradient.
        ranks: who has the other rows.
        size: rows of the whole batch (default: this rank has them all).
        micro_tokens: tokens that go through the model at once.
    """
    size = len(batch.tokens) if size is None else size
    targets, domain = ranks.interleave(np.stack([batch.loss_mask.sum(axis=1), batch.domain]), size)
    device = next(objective.parameters()).device
    tokens = _on(device, torch.from_numpy(batch.tokens))
    scale = _on(device, torch.from_numpy(batch.loss_mask).to(torch.float32) / max(int(targets.sum()), 1))
    rows = micro_rows(scale.shape[1], micro_tokens)
    most = -(-size // ranks.world)  # rows of a rank
    nats: list[Tensor] = []
    experts = [module for module in objective.modules() if isinstance(module, Experts)]
    routed: list[Tensor] = []
    balanced: list[Tensor] = []
    objective.zero_grad(set_to_none=True)
    for start in range(0, most, rows):
        part, share = tokens[start : start + rows], scale[start : start + rows]
        is_mine = len(part) > 0
        if not is_mine:  # The others have a row more, and may need this rank's part of the weights for it.
            part, share = torch.zeros_like(tokens[:1]), torch.zeros_like(scale[:1])
        with synchronised(objective, start + rows >= most):
            total, losses = objective(part, share)
            if experts:
                routed.append(torch.stack([one.counts for one in experts]) * is_mine)
                balanced.append(balance(experts, share).detach())
            total.backward()
        nats.append((losses.view(share.shape) * (share > 0)).sum(dim=1, dtype=torch.float64))
    norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), clip, foreach=True)
    return Outcome(
        torch.cat(nats)[: len(tokens)],
        whole(norm),
        targets,
        domain,
        ranks,
        sum(routed[1:], routed[0]) if routed else None,
        sum(balanced[1:], balanced[0]) if balanced else None,
    )


def _on(device: torch.device, tensor: Tensor) -> Tensor:
    """`tensor` on `device`; the way to a GPU waits for nothing that runs there."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def move(adamw: torch.optim.AdamW, lr: float) -> None:
    """Move the weights along their gradients at learning rate `lr`, each group at its share of it."""
    for group in adamw.param_groups:
        group["lr"] = lr * group["lr_factor"]
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

    @property
    def targets(self) -> int:
        """Targets that were in the loss."""
        return sum(count for _, count in self.sums.values())

    def losses(self) -> dict[str, float]:
        """``loss`` and ``loss/<domain>`` in nats a target, for the domains that had any."""
        parts = [(name, *self.sums[name]) for name in sorted(self.sums) if self.sums[name][1]]
        count = sum(seen for _, _, seen in parts)
        values = {"loss": sum(nats for _, nats, _ in parts) / count} if count else {}
        return values | {f"loss/{name}": nats / seen for name, nats, seen in parts}
