"""Sequences that share beginnings, as rows in which no shared token stands twice.

A row holds several sequences (the choices after a context, prompts of one wording) as a tree: its tokens in order of
depth first, each with the position that it has in its sequences and attending to those that stand before it there.
What all sequences of a group begin with (the examples of few-shot prompts) is read before, once for all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# A group is what begins with as many common tokens; its beginning is read apart where that saves the rows so many
# tokens, since it takes a pass of its own.
COMMON_TOKENS = 32
SAVED_TOKENS = 256

Tokens = tuple[int, ...]


class Tree(NamedTuple):
    """Rows in which tokens do not simply follow each other.

    `places` int64[B, T] is where each token stands in its sequences, `mask` bool[B, 1, T, S] which of the S tokens it
    attends to: those in the cache, then those read with it.
    """

    places: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Tree:
        return Tree(self.places.to(device), self.mask.to(device))

    def within(self, window: int) -> Tree:
        """The same where a token attends to the last `window` of its sequence, itself included."""
        start = self.mask.shape[-1] - self.places.shape[1]
        cached = torch.arange(start, device=self.places.device).expand(len(self.places), -1)
        there = torch.cat((cached, self.places), dim=1)
        near = self.places[:, :, None] - there[:, None, :] < window
        return Tree(self.places, self.mask & near[:, None])


@dataclass(frozen=True)
class Row:
    """A tree of sequences.

    `depths` are the places of `tokens` in their sequences, `ends` the first tokens after them that do not go on from
    them. `paths` gives, by number of a sequence, where in the row its tokens are.
    """

    tokens: list[int]
    depths: list[int]
    ends: list[int]
    paths: dict[int, list[int]]

    @property
    def width(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Batch:
    """Rows to be read in one pass, the longest first."""

    rows: list[Row]

    @property
    def width(self) -> int:
        return self.rows[0].width

    def paths(self) -> list[tuple[int, int, list[int]]]:
        """Of each sequence its number, its row and its path."""
        return [(number, place, path) for place, row in enumerate(self.rows) for number, path in row.paths.items()]

    def tokens(self) -> Tensor:
        """int64[rows, width], each row filled up with 0."""
        return torch.from_numpy(self._padded([row.tokens for row in self.rows]))

    def tree(self, start: int) -> Tree | None:
        """How the tokens stand after the first `start` of their sequences, which a cache holds; None if each row is one
        sequence, and the first of them."""
        if not start and all(len(row.paths) == 1 for row in self.rows):
            return None
        ends = torch.from_numpy(self._padded([row.ends for row in self.rows]))
        order = torch.arange(self.width)
        within = (order[:, None] >= order) & (order[:, None] < ends[:, None, :])
        within |= torch.eye(self.width, dtype=torch.bool)  # padding, which has to attend to something
        before = torch.ones(len(self.rows), self.width, start, dtype=torch.bool)
        places = torch.from_numpy(self._padded([row.depths for row in self.rows])) + start
        return Tree(places, torch.cat((before, within), dim=-1)[:, None])

    def _padded(self, parts: list[list[int]]) -> np.ndarray:
        found = np.zeros((len(parts), self.width), dtype=np.int64)
        for number, part in enumerate(parts):
            found[number, : len(part)] = part
        return found


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    shortest = min(len(one), len(other))
    if one[:shortest] == other[:shortest]:
        return shortest
    return next(place for place, (mine, its) in enumerate(zip(one, other, strict=False)) if mine != its)


def groups_of(
    sequences: Sequence[Tokens], asked: Sequence[int], worth: int | None
) -> Iterator[tuple[Tokens, list[Row]]]:
    """What groups of sequences begin with, and rows of the rest of them, by number of the sequence.

    Of each sequence so many of its last tokens are `asked` about: they are never read before. At the end come those
    whose beginning it does not pay to read before; see `rows_of` for `worth`.
    """
    found: dict[Tokens, list[int]] = {}
    for number, tokens in enumerate(sequences):
        found.setdefault(tokens[:COMMON_TOKENS], []).append(number)
    alone: dict[int, Tokens] = {}
    for begun, members in found.items():
        if len(members) > 1 and len(begun) == COMMON_TOKENS:
            inner = [sequences[number][: -asked[number]] for number in members]
            common = inner[0][: shared(min(inner), max(inner))]
            rows = rows_of({number: sequences[number][len(common) :] for number in members}, worth)
            if (len(rows) - 1) * len(common) >= SAVED_TOKENS:
                yield common, rows
                continue
        alone.update((number, sequences[number]) for number in members)
    if alone:
        yield (), rows_of(alone, worth)


def rows_of(sequences: Mapping[int, Tokens], worth: int | None) -> list[Row]:
    """Sequences, given by their numbers, as rows.

    One goes into the row of its neighbour (in alphabetical order) where that pays: reading a token again costs as much
    as attending to `worth` others, and a wider row has all its tokens attend to all. Where that is None it never pays.
    """
    rows: list[Row] = []
    path: list[int] = []
    before: Tokens = ()
    for number, tokens in sorted(sequences.items(), key=itemgetter(1)):
        same = shared(before, tokens)
        width = rows[-1].width if rows else 0
        wider = (width + len(tokens) - same) ** 2 - width**2 - len(tokens) ** 2
        if not rows or worth is None or wider > worth * same:
            rows.append(Row([], [], [], {}))
            path, same = [], 0
        row, before = rows[-1], tokens
        start, end = row.width, row.width + len(tokens) - same
        path = [*path[:same], *range(start, end)]
        row.tokens.extend(tokens[same:])
        row.depths.extend(range(same, len(tokens)))
        row.ends.extend([end] * (end - start))
        row.paths[number] = path
        for place in path[:same]:
            row.ends[place] = end
    return rows


def batches_of(rows: Sequence[Row], tokens: int, even: bool = False) -> Iterator[Batch]:
    """Batches of at most `tokens` tokens, padding included, or of one row; `even` ones have no padding."""
    rest = sorted(rows, key=lambda row: -row.width)
    start = 0
    while start < len(rest):
        width = rest[start].width
        batch = rest[start : start + max(1, tokens // width)]
        if even:
            batch = [row for row in batch if row.width == width]
        yield Batch(batch)
        start += len(batch)
