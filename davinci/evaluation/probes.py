"""Probes of a node: the items, and when they are due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from davinci.config import Node
from davinci.evaluation.probe_items import read_items
from davinci.evaluation.probe_key import probe_file
from davinci.evaluation.probe_scores import ProbeSet, Ranks
from davinci.model.decoder import Decoder
from davinci.store import Store


@dataclass(frozen=True)
class Probe:
    """The set `key`, scored whenever a step of `node` passes a multiple of `every_tokens`.

    `lacking` are the token counts at which it is not scored yet.
    """

    key: str
    every_tokens: int
    lacking: Sequence[int]
    node: Node
    store: Store

    @cached_property
    def _items(self) -> dict[str, ProbeSet]:
        return {}

    def score(self, model: Decoder, ranks: Ranks) -> list[dict[str, Any]]:
        """The rows of one pass (see `ProbeSet.score`), with the set's key."""
        device = model.unembedding.device.type
        if device not in self._items:
            items = read_items(probe_file(self.store, self.node.pool, self.key))
            tokenizer = Tokenizer.from_file(str(self.store.pool(self.node.pool) / "tokenizer.json"))
            longest = self.node.model.max_position_embeddings
            self._items[device] = ProbeSet(items, tokenizer, longest, device, self.node.end_of_text)
        return [{"suite": self.key, **row} for row in self._items[device].score(model, ranks)]
