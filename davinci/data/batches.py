"""The batches of a node: a function of (node, pool, step) and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from davinci.config import Node
from davinci.data.cards import PoolCard, built_card
from davinci.data.order import MixtureOrder
from davinci.data.shards import Shard
from davinci.errors import UserError, nearest
from davinci.store import Store

# Sequences whose order is computed at once: a few milliseconds for some hundred steps.
_WINDOW = 4096


@dataclass(frozen=True)
class Batch:
    """`tokens` int64[B, T + 1]; `loss_mask` bool[B, T], False where the target takes no part in the loss; `domain`
    int64[B], an index into `Batches.domains`."""

    tokens: npt.NDArray[np.int64]
    loss_mask: npt.NDArray[np.bool_]
    domain: npt.NDArray[np.int64]


class Batches:
    """Reads the batches of `node`.

    Args:
        node: says mixture, steps, sequence length and seed. Its sources are put in order of name.
        store: where the pool is.
        cursors: draws of each source before the stage began to read this mixture (absent: 0).
        rank, world: this reader takes rows rank, rank + world, … of each batch.

    Raises:
        UserError: the pool is not built, or is not the one the node was planned with.
    """

    def __init__(self, node: Node, store: Store, cursors: Mapping[str, int], rank: int = 0, world: int = 1) -> None:
        self.domains = sorted({use.domain for use in node.sources.values()})
        self._node = node
        self._cursors = dict(cursors)
        self._rows = slice(rank, None, world)
        self._names = sorted(node.sources)
        self._order = MixtureOrder([node.sources[name].weight for name in self._names])
        self._domain = np.array([self.domains.index(node.sources[name].domain) for name in self._names], dtype=np.int64)
        self._shards = _open(node, store)
        self._window: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}

    def batch(self, step: int) -> Batch:
        """The batch of the stage's `step`-th step (from 0 where the stage begins)."""
        grid = self._node.stage.grid
        length = self._node.stage.sequence_length
        start = self._sequences_before(step)
        sources, chunks = self._sequences(start, grid.batch_at(step))
        sources, chunks = sources[self._rows], chunks[self._rows]
        tokens = np.empty((len(sources), length + 1), dtype=np.int64)
        mask = np.ones((len(sources), length), dtype=np.bool_)
        for source in np.unique(sources):
            rows = np.flatnonzero(sources == source)
            tokens[rows], question = self._shards[source].read(chunks[rows], length)
            if self._node.stage.mask_questions:
                mask[rows] = ~question
        return Batch(tokens, mask, self._domain[sources])

    def cursors_at(self, step: int) -> dict[str, int]:
        """Draws of every source after `step` steps of the stage; those not in this mixture keep theirs."""
        before = self._order.counts(self._node.mixture_position)
        after = self._order.counts(self._node.mixture_position + self._sequences_before(step))
        drawn = {name: after[index] - before[index] for index, name in enumerate(self._names)}
        return {name: self._cursors.get(name, 0) + drawn.get(name, 0) for name in {*self._cursors, *drawn}}

    def _sequences_before(self, step: int) -> int:
        """Sequences of this mixture that the stage has read before `step`."""
        begin = self._node.stage_begin if self._node.mixture_begin is None else self._node.mixture_begin
        tokens = self._node.stage.grid.tokens_at(step) - (begin - self._node.stage_begin)
        return tokens // self._node.stage.sequence_length

    def _sequences(self, start: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Source and chunk of `count` sequences from the `start`-th of this mixture in the stage on."""
        parts = []
        for window in range(start // _WINDOW, (start + count - 1) // _WINDOW + 1):
            sources, chunks = self._read_window(window)
            part = slice(max(0, start - window * _WINDOW), start + count - window * _WINDOW)
            parts.append((sources[part], chunks[part]))
        return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])

    def _read_window(self, window: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        if window not in self._window:
            position = self._node.mixture_position
            before = self._order.counts(position)
            sources, draws = self._order.block(position + window * _WINDOW, _WINDOW)
            chunks = np.empty_like(draws)
            for index, name in enumerate(self._names):
                here = sources == index
                earlier = self._cursors.get(name, 0) - before[index]
                chunks[here] = self._shards[index].chunks(
                    draws[here] + earlier, self._node.data_seed, self._node.stage.sequence_length
                )
            self._window = {one: kept for one, kept in self._window.items() if one == window - 1}
            self._window[window] = sources, chunks
        return self._window[window]


def _open(node: Node, store: Store) -> list[Shard]:
    """The node's shards in order of source name, each checked to be what the node was planned with."""
    card = built_card(store, node.pool)
    folder = store.pool(node.pool)
    tokenizer = folder / card.tokenizer.file
    if node.tokenizer_digest not in (None, card.tokenizer.digest):
        raise UserError(
            f"{tokenizer}: not the tokenizer that node {node.id} was planned with "
            f"({card.tokenizer.digest[:12]}, not {node.tokenizer_digest[:12]})"
        )
    return [_open_source(node, name, card, store) for name in sorted(node.sources)]


def _open_source(node: Node, name: str, card: PoolCard, store: Store) -> Shard:
    folder = store.pool(node.pool)
    use = node.sources[name]
    if name not in card.sources:
        raise UserError(f"{folder / 'card.json'}: has no source {name!r}" + nearest(name, card.sources))
    variants = card.sources[name].variants
    if use.depth not in variants:
        raise UserError(f"{folder / 'card.json'}: {name} has no depth {use.depth}" + nearest(use.depth, variants))
    if use.digest not in (None, variants[use.depth].digest):
        raise UserError(f"{folder / f'{name}@{use.depth}'}: not the content that node {node.id} was planned with")
    written = variants[use.depth].tokenizer
    if written not in (None, card.tokenizer.digest):
        raise UserError(
            f"{folder / f'{name}@{use.depth}'}: tokens of tokenizer {written[:12]}, but the pool's is "
            f"{card.tokenizer.digest[:12]}; build the pool again"
        )
    return Shard(folder / f"{name}@{use.depth}", "train", variants[use.depth])
