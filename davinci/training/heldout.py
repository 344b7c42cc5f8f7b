"""Held-out loss of each domain: nats a token, and bits a byte (comparable across tokenizers)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from davinci.config import Node
from davinci.data.cards import read_card
from davinci.data.heldout import heldout
from davinci.store import Store
from davinci.training.distributed import ALONE, Ranks
from davinci.training.step import micro_rows


@dataclass(frozen=True)
class HeldOut:
    """Held-out sequences of one domain: tokens int64[N, T+1], and the bytes of text that the N*T targets stand for."""

    domain: str
    tokens: Tensor
    target_bytes: int


def load(node: Node, store: Store, sequences: int) -> list[HeldOut]:
    """Up to `sequences` sequences of every domain of the node's pool, those it does not train on included."""
    card = read_card(store, node.pool)
    domains = sorted({source.domain for source in card.sources.values()}) if card else []
    return [load_domain(node, store, domain, sequences) for domain in domains]


def load_domain(node: Node, store: Store, domain: str, sequences: int) -> HeldOut:
    """Up to `sequences` sequences of one domain of the node's pool."""
    folder = store.pool(node.pool)
    card = folder / "card.json"
    stamp = card.stat().st_mtime_ns if card.is_file() else 0
    tokens, target_bytes = _read(folder, stamp, domain, sequences, node.stage.sequence_length)
    return HeldOut(domain, tokens, target_bytes)


@lru_cache(maxsize=16)
def _read(folder: Path, stamp: int, domain: str, sequences: int, length: int) -> tuple[Tensor, int]:
    """What runs that follow each other in one process share; `stamp` changes when the pool is built again."""
    held = heldout(folder, domain, sequences, length)
    return torch.from_numpy(held.tokens), int(held.target_bytes.sum())


@torch.no_grad()
def measure(objective: nn.Module, held: HeldOut, ranks: Ranks = ALONE) -> dict[str, float | int]:
    """``loss`` (nats a token), ``bits_per_byte`` and ``sequences``: the same bits for any number of ranks.

    Each rank takes some of the parts that go through the model, an `Objective`, at once; their sums are added up in one
    order.
    """
    sequences, length = held.tokens.shape[0], held.tokens.shape[1] - 1
    device = next(objective.parameters()).device
    parts = held.tokens.split(micro_rows(length))
    mine = []
    for first in range(0, len(parts), ranks.world):
        # A rank for which none is left still has its part of the weights to give.
        index = first + ranks.rank
        _, losses = objective(parts[min(index, len(parts) - 1)].to(device))
        if index < len(parts):
            mine.append(losses.sum(dtype=torch.float64).item())
    if isinstance(objective, FSDPModule):
        objective.reshard()  # The next step would take the weights gathered here for its own.
    nats = sum(ranks.interleave(np.array(mine), len(parts)).tolist())
    return {
        "loss": nats / (sequences * length),
        "bits_per_byte": nats / math.log(2) / held.target_bytes,
        "sequences": sequences,
    }
