"""The mixture order: which source each sequence of a stage comes from, exactly and at any position.

A Huffman tree over the sources; each node splits its positions between its two children by rounding: of the first m
positions of a node of weight w = l + r, the left child has round(m l / w). A source of weight w0 is then off its share
of a prefix by at most half the sum of w0 / wj over the nodes on its path (w0 itself included, the root not). In a
Huffman tree those weights grow at least like Fibonacci's numbers, whose reciprocals sum to 3.36: less than 1.68
sequences, at any weights and any length. Integers only: no drift.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from davinci.errors import UserError

Indices: TypeAlias = npt.NDArray[np.int64]
# A block is computed in pieces, each of which stays inside int64 and the processor's cache.
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class _Leaf:
    weight: int
    source: int


@dataclass(frozen=True, slots=True)
class _Split:
    weight: int
    left: _Split | _Leaf
    right: _Split | _Leaf

    def in_left(self, positions: int) -> int:
        """How many of the node's first `positions` belong to the left child: rounded half up."""
        return (2 * positions * self.left.weight + self.weight) // (2 * self.weight)


class MixtureOrder:
    """The order of sources under integer `weights` (zero: never drawn).

    Raises:
        UserError: a negative weight, or none that is positive.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        if any(weight < 0 for weight in weights) or not any(weights):
            raise UserError(f"mixture weights must be zero or more, and one of them positive: {list(weights)}")
        self._sources = len(weights)
        divisor = math.gcd(*weights)
        self._root = _huffman([weight // divisor for weight in weights])

    def at(self, position: int) -> tuple[int, int]:
        """The source of one position, and how many earlier positions took that source."""
        node = self._root
        while isinstance(node, _Split):
            before = node.in_left(position)
            if node.in_left(position + 1) > before:
                node, position = node.left, before
            else:
                node, position = node.right, position - before
        return node.source, position

    def counts(self, positions: int) -> list[int]:
        """How many of the first `positions` took each source."""
        counts = [0] * self._sources
        waiting: list[tuple[_Split | _Leaf, int]] = [(self._root, positions)]
        while waiting:
            node, here = waiting.pop()
            if isinstance(node, _Leaf):
                counts[node.source] = here
            else:
                left = node.in_left(here)
                waiting += [(node.left, left), (node.right, here - left)]
        return counts

    def block(self, start: int, count: int) -> tuple[Indices, Indices]:
        """`at` for positions start, start + 1, …: sources int64[count] and earlier draws int64[count]."""
        sources, draws = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        for begin in range(0, count, _PIECE):
            length = min(_PIECE, count - begin)
            piece = slice(begin, begin + length)
            self._fill(start + begin, sources[piece], draws[piece])
        return sources, draws

    def _fill(self, start: int, sources: Indices, draws: Indices) -> None:
        """Fill one piece. At each node the piece is a run of consecutive positions of that node."""
        waiting = [(self._root, start, np.arange(len(sources), dtype=np.int64))]
        while waiting:
            node, first, places = waiting.pop()
            if isinstance(node, _Leaf):
                sources[places] = node.source
                draws[places] = np.arange(first, first + len(places))
                continue
            left = node.in_left(first)
            in_right = _right(node, first, len(places))
            if len(in_right):
                waiting.append((node.right, first - left, places[in_right]))
            if len(in_right) < len(places):
                stays = np.ones(len(places), dtype=np.bool_)
                stays[in_right] = False
                waiting.append((node.left, left, places[stays]))


def _right(node: _Split, first: int, count: int) -> Indices:
    """Which of `count` positions from `first`, counted from there, the right child takes: the lighter of the two.

    Of the first m positions it has m - round(m l / w) = floor((2 m r + w - 1) / 2w), so its j-th (from 0) is the
    smallest p with 2 (p + 1) r >= w (2 j + 1) + 1: one division for each of its own, none for the other child's.
    """
    step, base = 2 * node.right.weight, 2 * node.weight
    before = first - node.in_left(first)
    found = first + count - node.in_left(first + count) - before
    offset = node.weight * (2 * before + 1) - step * first
    if (found + 2) * base >= 2**62:
        return np.array([(offset + base * index) // step for index in range(found)], dtype=np.int64)
    return (np.arange(found, dtype=np.int64) * base + offset) // step


def _huffman(weights: Sequence[int]) -> _Split | _Leaf:
    """The tree that joins the two lightest again and again; equal weights by order of making, so that it is unique."""
    heap: list[tuple[int, int, _Split | _Leaf]] = [
        (weight, index, _Leaf(weight, index)) for index, weight in enumerate(weights) if weight
    ]
    heapq.heapify(heap)
    made = len(weights)
    while len(heap) > 1:
        right, left = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (left[0] + right[0], made, _Split(left[0] + right[0], left[2], right[2])))
        made += 1
    return heap[0][2]
