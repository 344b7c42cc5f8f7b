"""Requests that share their beginning, as one row: what is common is read once, and the ends stand side by side.

A row is a prefix and the tails that go on from it (the choices of an item, say), packed one after another. Each tail
sees the prefix and itself and has the positions it would have alone, so that a row holds no token twice and all rows
of a batch are read in one pass. What every row of a batch begins with (the examples of few-shot prompts) is read
once for all, before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from davinci.model.cache import COMMON_TOKENS, shared_beginning


@dataclass(frozen=True)
class Tail:
    """The scored end of one request: the model reads `inputs` after the prefix and should say `targets`."""

    request: int
    inputs: list[int]
    targets: list[int]


@dataclass(frozen=True)
class Row:
    """A prefix and the tails that go on from it."""

    prefix: tuple[int, ...]
    tails: list[Tail]

    @property
    def width(self) -> int:
        return len(self.prefix) + sum(len(tail.inputs) for tail in self.tails)


@dataclass(frozen=True)
class Batch:
    """Rows to be read in one pass after `common`, which none of them repeats."""

    common: tuple[int, ...]
    rows: list[Row]

    @property
    def width(self) -> int:
        return self.rows[0].width  # the longest comes first

    @property
    def tails(self) -> list[Tail]:
        return [tail for row in self.rows for tail in row.tails]

    def tokens(self) -> Tensor:
        """int64[rows, width], each row filled up with 0."""
        parts = [[*row.prefix, *(token for tail in row.tails for token in tail.inputs)] for row in self.rows]
        return torch.tensor([part + [0] * (self.width - len(part)) for part in parts], dtype=torch.int64)

    def targets(self) -> Tensor:
        """int64[rows, width]: what the model should say after each token of a tail's end; -1 where nothing is asked."""
        found = torch.full((len(self.rows), self.width), -1, dtype=torch.int64)
        for place, row in enumerate(self.rows):
            end = len(row.prefix)
            for tail in row.tails:
                end += len(tail.inputs)
                found[place, end - len(tail.targets) : end] = torch.tensor(tail.targets)
        return found

    def layout(self) -> tuple[Tensor, Tensor]:
        """Positions int64[rows, width] and who sees whom, bool[rows, 1, width, common + width]."""
        start, width = len(self.common), self.width
        places = torch.zeros(len(self.rows), width, dtype=torch.int64)
        owner = torch.zeros(len(self.rows), width, dtype=torch.int64)  # 0 the prefix, then the tails
        for number, row in enumerate(self.rows):
            begin = end = len(row.prefix)
            places[number, :end] = torch.arange(start, start + end)
            for index, tail in enumerate(row.tails, start=1):
                places[number, end : end + len(tail.inputs)] = torch.arange(begin, begin + len(tail.inputs)) + start
                owner[number, end : end + len(tail.inputs)] = index
                end += len(tail.inputs)
        sees = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
        within = sees & torch.ones(width, width, dtype=torch.bool).tril()
        before = torch.ones(len(self.rows), width, start, dtype=torch.bool)
        return places, torch.cat((before, within), dim=-1)[:, None]


def rows_of(requests: Sequence[tuple[list[int], int]], limit: int) -> list[Row]:
    """Rows of requests given as (tokens, how many of them at the end are scored), those of one prefix together.

    `limit` tokens is the most a row packs of tails. The last token of the context belongs to the tail: the model's
    word after it is scored.
    """
    found: dict[tuple[int, ...], list[Row]] = {}
    for index, (tokens, scored) in enumerate(requests):
        start = max(0, len(tokens) - scored - 1)
        tail = Tail(index, tokens[start:-1], tokens[start + 1 :])
        rows = found.setdefault(tuple(tokens[:start]), [])
        if start and rows and rows[-1].width + len(tail.inputs) <= start + limit:
            rows[-1].tails.append(tail)
        else:
            rows.append(Row(tuple(tokens[:start]), [tail]))
    return [row for rows in found.values() for row in rows]


def batches_of(rows: Sequence[Row], tokens: int) -> Iterator[Batch]:
    """Batches of at most `tokens` tokens, padding included, or of one row; those of one beginning come together."""

    found: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        begun = row.prefix[:COMMON_TOKENS]
        found.setdefault(begun if len(begun) == COMMON_TOKENS else (), []).append(row)
    single = [row for begun, members in found.items() if not begun or len(members) == 1 for row in members]
    shared = [members for begun, members in found.items() if begun and len(members) > 1]
    for members in [single, *shared]:
        common = () if members is single else shared_beginning([row.prefix for row in members])
        rest = [replace(row, prefix=row.prefix[len(common) :]) for row in members]
        rest.sort(key=lambda row: -row.width)
        start = 0
        while start < len(rest):
            count = max(1, tokens // max(1, rest[start].width))
            yield Batch(common, rest[start : start + count])
            start += count
