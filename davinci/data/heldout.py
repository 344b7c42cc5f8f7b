"""Held-out sequences of a domain, for the loss in nats a token and in bits a byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from davinci.config import parse
from davinci.data.cards import PoolCard, measured_level
from davinci.data.shards import Shard
from davinci.errors import UserError
from davinci.store import read_json


@dataclass(frozen=True)
class Heldout:
    """`tokens` int64[N, T + 1]; `target_bytes` int64[N, T], the bytes of text of each target (0: end of text).

    Bits a byte = sum of the targets' losses in nats / ln 2 / sum of `target_bytes`.
    """

    tokens: npt.NDArray[np.int64]
    target_bytes: npt.NDArray[np.int64]


def heldout(folder: Path, domain: str, sequences: int, length: int) -> Heldout:
    """Up to `sequences` held-out sequences of `length` targets, evenly over the domain's held-out text.

    Every source at one level (`measured_level`), whatever a run trains on, so that all are measured on the same text.

    Raises:
        UserError: the pool is not built, or the domain has no held-out sequence.
    """
    from davinci.data.tokenizer import token_bytes

    path = folder / "card.json"
    if not path.is_file():
        raise UserError(f"{path}: missing; run: python -m davinci data build {folder.name}")
    card = parse(PoolCard, read_json(path), where=lambda key: str(path))
    shards = []
    for name, source in sorted(card.sources.items()):
        if source.domain == domain:
            depth = measured_level(source.variants)
            shards.append(Shard(folder / f"{name}@{depth}", "heldout", source.variants[depth]))
    ends = np.cumsum([shard.sequences(length) for shard in shards], dtype=np.int64)
    total = int(ends[-1]) if shards else 0
    if total == 0:
        raise UserError(f"{path}: domain {domain!r} has no held-out sequence of {length} tokens")
    count = min(sequences, total)
    places = (np.arange(count, dtype=np.int64) * total) // count
    owner = np.searchsorted(ends, places, side="right")
    starts = ends - [shard.sequences(length) for shard in shards]
    parts = [shards[index].read(places[owner == index] - starts[index], length)[0] for index in np.unique(owner)]
    tokens = np.concatenate(parts)
    return Heldout(tokens, token_bytes(folder / card.tokenizer.file)[tokens[:, 1:]])
