"""Held-out loss of each domain: nats a token, and bits a byte (comparable across tokenizers)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from davinci.config import Node
from davinci.data.cards import read_card
from davinci.data.heldout import heldout
from davinci.model.decoder import Decoder
from davinci.store import Store
from davinci.training.distributed import ALONE, Ranks
from davinci.training.loss import token_losses
from davinci.training.step import documents_of, micro_rows, separator_of


@dataclass(frozen=True)
class HeldOut:
    """Held-out sequences of one domain: tokens int64[N, T+1], and the bytes of text that the N*T targets stand for.

    `separator` opens a document where the stage tells documents apart: it is measured as it is trained.
    """

    domain: str
    tokens: Tensor
    target_bytes: int
    separator: int | None = None


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
    return HeldOut(domain, tokens, target_bytes, separator_of(node.stage))


@lru_cache(maxsize=16)
def _read(folder: Path, stamp: int, domain: str, sequences: int, length: int) -> tuple[Tensor, int]:
    """What runs that follow each other in one process share; `stamp` changes when the pool is built again."""
    held = heldout(folder, domain, sequences, length)
    return torch.from_numpy(held.tokens), int(held.target_bytes.sum())


@torch.inference_mode()
def measure(model: Decoder, held: HeldOut, ranks: Ranks = ALONE) -> dict[str, float | int]:
    """``loss`` (nats a token), ``bits_per_byte`` and ``sequences``: the same bits for any number of ranks.

    Each rank takes some of the parts that go through the model at once; their sums are added up in one order.
    """
    sequences, length = held.tokens.shape[0], held.tokens.shape[1] - 1
    parts = held.tokens.split(micro_rows(length))
    mine = []
    for part in parts[ranks.rank :: ranks.world]:
        inputs = part[:, :-1]
        hidden = model.hidden(inputs, documents=documents_of(inputs, held.separator)).flatten(0, 1)
        losses = token_losses(hidden, model.unembedding, part[:, 1:].flatten())
        mine.append(losses.sum(dtype=torch.float64).item())
    nats = sum(ranks.interleave(np.array(mine), len(parts)).tolist())
    return {
        "loss": nats / (sequences * length),
        "bits_per_byte": nats / math.log(2) / held.target_bytes,
        "sequences": sequences,
    }
