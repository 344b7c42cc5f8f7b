"""One source at one level, memory-mapped: sequences of tokens, drawn in an order of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from davinci.data.cards import Extent, Split, VariantCard
from davinci.data.checksums import changed
from davinci.data.permutation import permute
from davinci.errors import UserError

Tokens = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Stored = npt.NDArray[Any]


class Shard:
    """The tokens of one split of ``<source>@<depth>``, in however many files.

    Sequence c of length T is tokens c T to c T + T inclusive: T inputs and T targets, each token a target once.

    Args:
        folder: the variant's folder.
        split: ``train`` or ``heldout``.
        card: the variant's card, which says how long the files must be.

    Raises:
        UserError: a file is missing, has another length than the card says, or is not what was written (`changed`).
    """

    def __init__(self, folder: Path, split: Split, card: VariantCard) -> None:
        self.name = folder.name
        self._digest = card.digest
        extents = card.files(split)
        kind = np.dtype(card.dtype).newbyteorder("<")
        self._tokens = _Row([_mapped(folder / one.file, kind, one) for one in extents])
        marks = [(question_file(folder / one.file), one) for one in extents]
        self._question = None
        if marks[0][0].exists():
            self._question = _Row(
                [
                    _mapped(path, np.dtype(np.uint8), Extent(file=path.name, tokens=one.tokens, size=one.tokens))
                    for path, one in marks
                ]
            )
        for line in changed(folder, {one.file for one in extents} | {path.name for path, _ in marks}):
            raise UserError(f"{line}; build the pool again")

    @property
    def tokens(self) -> int:
        return len(self._tokens)

    def sequences(self, length: int) -> int:
        """How many sequences of `length` targets one pass holds."""
        return max(0, self.tokens - 1) // length

    def chunks(self, draws: npt.NDArray[np.int64], seed: int, length: int) -> npt.NDArray[np.int64]:
        """The sequence that each draw reads, int64[n]: draw k is the (k mod n)-th of epoch k // n's permutation.

        It depends on the seed, this source's name and content, k and the length, and on nothing else.
        """
        size = self.sequences(length)
        if size == 0:
            raise UserError(f"{self.name}: {self.tokens} tokens do not hold one sequence of {length}")
        chosen = np.empty(len(draws), dtype=np.int64)
        epochs = draws // size
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = f"{seed} {self.name} {self._digest} {length} {epoch}"
            chosen[here] = permute(draws[here] % size, size, key)
        return chosen

    def read(self, chunks: npt.NDArray[np.int64], length: int) -> tuple[Tokens, Mask]:
        """Tokens int64[n, length + 1] of sequences, and bool[n, length]: whether target t belongs to a question."""
        starts = np.asarray(chunks, dtype=np.int64) * length
        tokens: Tokens = self._tokens.windows(starts, length + 1, np.dtype(np.int64))
        if self._question is None:
            return tokens, np.zeros((len(chunks), length), dtype=np.bool_)
        return tokens, self._question.windows(starts + 1, length, np.dtype(np.bool_))

    def draw(self, seed: int, k: int, length: int) -> tuple[Tokens, Mask]:
        """The k-th draw: tokens int64[length + 1] and question bool[length]."""
        tokens, question = self.read(self.chunks(np.array([k], dtype=np.int64), seed, length), length)
        return tokens[0], question[0]

    def beginning(self, count: int) -> Tokens:
        """The first `count` tokens, fewer where there are not so many, int64[.]."""
        start = np.zeros(1, dtype=np.int64)
        tokens: Tokens = self._tokens.windows(start, min(count, self.tokens), np.dtype(np.int64)).reshape(-1)
        return tokens


class _Row:
    """Arrays one after the other, read as one."""

    def __init__(self, arrays: list[Stored]) -> None:
        self._arrays = arrays
        self._ends = np.cumsum([len(one) for one in arrays], dtype=np.int64)
        self._begins = self._ends - [len(one) for one in arrays]
        self._views: dict[tuple[int, int], Stored] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def windows(self, starts: npt.NDArray[np.int64], width: int, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """`width` items from each of `starts` on, [n, width]."""
        owners = np.searchsorted(self._ends, starts, side="right")
        found = np.empty((len(starts), width), dtype=kind)
        whole = np.zeros(len(starts), dtype=np.bool_)
        for owner in np.unique(owners[owners < len(self._arrays)]):
            rows = np.flatnonzero((owners == owner) & (starts + width <= self._ends[owner]))
            if len(rows):
                found[rows] = self._view(int(owner), width)[starts[rows] - self._begins[owner]]
                whole[rows] = True
        for row in np.flatnonzero(~whole):
            found[row] = self._across(int(starts[row]), width)
        return found

    def _view(self, owner: int, width: int) -> Stored:
        """Every window of one array, [places, width], without a copy."""
        if (owner, width) not in self._views:
            self._views[owner, width] = np.lib.stride_tricks.sliding_window_view(self._arrays[owner], width)
        return self._views[owner, width]

    def _across(self, start: int, width: int) -> Stored:
        """A window that begins in one array and ends in another."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        parts, end = [], start + width
        for array, begin in zip(self._arrays[first:], self._begins[first:].tolist(), strict=True):
            if begin >= end:
                break
            parts.append(array[max(0, start - begin) : end - begin])
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def question_file(path: Path) -> Path:
    """Where the question marks of a shard's tokens are, if it has any: ``train.question.bin`` of ``train.bin``."""
    split, _, rest = path.name.partition(".")
    return path.with_name(f"{split}.question.{rest}")


def _mapped(path: Path, kind: np.dtype[Any], extent: Extent) -> Stored:
    """Map a stretch of a file."""
    if not path.is_file():
        raise UserError(f"{path}: missing; build the pool again")
    size = path.stat().st_size
    if size != extent.size:
        raise UserError(f"{path}: {size:,} bytes where the card says {extent.size:,}; build the pool again")
    if extent.tokens == 0:
        return np.zeros(0, dtype=kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="r", offset=extent.byte, shape=(extent.tokens,)))
