"""One source at one level, memory-mapped: sequences of tokens, drawn in an order of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from davinci.data.cards import VariantCard
from davinci.data.permutation import permute
from davinci.errors import UserError

Tokens = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Shard:
    """The tokens of one split of ``<source>@<depth>``.

    Sequence c of length T is tokens c T to c T + T inclusive: T inputs and T targets, each token a target once.

    Args:
        folder: the variant's folder.
        split: ``train`` or ``heldout``.
        card: the variant's card, which says how long the files must be.

    Raises:
        UserError: a file is missing or has another length than the card says.
    """

    def __init__(self, folder: Path, split: Literal["train", "heldout"], card: VariantCard) -> None:
        self.name = folder.name
        self._digest = card.digest
        tokens = card.tokens if split == "train" else card.heldout_tokens
        self._tokens: npt.NDArray[np.uint16] = _mapped(folder / f"{split}.bin", "<u2", tokens)
        question = folder / f"{split}.question.bin"
        self._question = _mapped(question, np.uint8, tokens) if question.exists() else None

    @property
    def tokens(self) -> int:
        return len(self._tokens)

    def sequences(self, length: int) -> int:
        """How many sequences of `length` targets one pass holds."""
        return max(0, len(self._tokens) - 1) // length

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
        places = (chunks * length)[:, None] + np.arange(length + 1)
        tokens = self._tokens[places].astype(np.int64)
        if self._question is None:
            return tokens, np.zeros((len(chunks), length), dtype=np.bool_)
        return tokens, self._question[places[:, 1:]].astype(np.bool_)

    def draw(self, seed: int, k: int, length: int) -> tuple[Tokens, Mask]:
        """The k-th draw: tokens int64[length + 1] and question bool[length]."""
        tokens, question = self.read(self.chunks(np.array([k], dtype=np.int64), seed, length), length)
        return tokens[0], question[0]


def _mapped(path: Path, kind: npt.DTypeLike, length: int) -> npt.NDArray[np.uint16]:
    """Map a file of `length` items."""
    expected = length * np.dtype(kind).itemsize
    if not path.is_file():
        raise UserError(f"{path}: missing; build the pool again")
    size = path.stat().st_size
    if size != expected:
        raise UserError(f"{path}: {size:,} bytes where the card says {expected:,}; build the pool again")
    if length == 0:
        return np.zeros(0, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r", shape=(length,))
