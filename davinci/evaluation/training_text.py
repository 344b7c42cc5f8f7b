"""A built pool's training text, read back from its shards: as bytes, and as frequencies of tokens.

Tokens are turned into bytes by table, not by the tokenizer, which takes ten times as long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from davinci.data.cards import PoolCard, measured_level
from davinci.data.shards import Shard, Tokens
from davinci.data.tokenizer import spelled
from davinci.store import Store

# Of each source and level: a pool of trillions of tokens is not read for a few thousand items.
TOKENS_READ = 20_000_000
_PIECE = 1 << 18
# Pairs of tokens are counted in so many places: exact up to a vocabulary of 2,896, above it some pairs share a place.
_PAIRS = 1 << 23

Bytes = npt.NDArray[np.uint8]


def texts(store: Store, pool: str, card: PoolCard) -> Iterator[Bytes]:
    """The training text of every source at every level, uint8[n] in pieces that end where a document does.

    A document that stands unchanged at several levels is given once.

    Raises:
        UserError: a shard is missing.
    """
    end = card.tokenizer.end_of_text
    table, starts, sizes = _token_table(store.pool(pool) / card.tokenizer.file, end)
    for name, source in sorted(card.sources.items()):
        known: set[bytes] = set()
        for level in sorted(source.variants):
            tokens = _tokens(store, pool, card, name, level)
            if len(source.variants) > 1:
                tokens = _new(tokens, end, known)
            ends = np.flatnonzero(tokens == end)
            cuts = ends[np.searchsorted(ends, np.arange(_PIECE, len(tokens), _PIECE)) - 1] if len(ends) else ends
            for piece in np.split(tokens, np.unique(cuts) + 1):
                length = sizes[piece]
                ahead = np.repeat(starts[piece] - (np.cumsum(length) - length), length)
                yield table[ahead + np.arange(len(ahead))]


def documents(store: Store, pool: str, card: PoolCard, source: str, level: str) -> Iterator[Bytes]:
    """The training documents of one source at one level, uint8[n] of UTF-8 each, as far as `TOKENS_READ` goes."""
    end = card.tokenizer.end_of_text
    table, starts, sizes = _token_table(store.pool(pool) / card.tokenizer.file, end)
    tokens = _tokens(store, pool, card, source, level)
    for piece in np.split(tokens, np.flatnonzero(tokens == end) + 1):
        if len(piece):
            length = sizes[piece]
            ahead = np.repeat(starts[piece] - (np.cumsum(length) - length), length)
            yield table[ahead + np.arange(len(ahead))]


class Frequencies:
    """How usual a text is in the training text, by frequencies of single tokens and of pairs of them.

    Counted in every source at the level that is measured (`measured_level`).
    """

    def __init__(self, store: Store, pool: str, card: PoolCard) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(store.pool(pool) / card.tokenizer.file))
        self._size = size = card.tokenizer.vocab_size
        single, pairs = np.zeros(size, dtype=np.int64), np.zeros(_PAIRS, dtype=np.int64)
        for name, source in sorted(card.sources.items()):
            tokens = _tokens(store, pool, card, name, measured_level(source.variants))
            single += np.bincount(tokens, minlength=size)
            pairs += np.bincount(self._places(tokens[:-1], tokens[1:]), minlength=_PAIRS)
        self._known: dict[str, npt.NDArray[np.float64]] = {}
        self._counts, self._pair_counts = single, pairs
        self._single = np.log((single + 1) / (single.sum() + size))

    def _places(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return (first * self._size + second) % _PAIRS

    def of(self, some: Sequence[str]) -> npt.NDArray[np.float64]:
        """Log-probabilities of texts, float64[n, 2], to six places: of the tokens one by one, and of each given the one
        before it, the first by itself.

        p(b) is smoothed by adding one, p(b | a) = (c(ab) + p(b)) / (c(a) + 1) by single tokens (a Dirichlet prior of
        weight 1, MacKay and Peto 1995).
        """
        new = [text for text in dict.fromkeys(some) if text not in self._known]
        if new:
            self._known.update(zip(new, self._count(new), strict=True))
        return np.array([self._known[text] for text in some])

    def _count(self, some: list[str]) -> npt.NDArray[np.float64]:
        encoded = self._tokenizer.encode_batch_fast(some, add_special_tokens=False)
        sizes = np.array([len(one.ids) for one in encoded])
        ids = np.array([token for one in encoded for token in one.ids], dtype=np.int64)
        begins = np.cumsum(sizes) - sizes
        single = self._single[ids]
        before = np.roll(ids, 1)
        pairs = np.log((self._pair_counts[self._places(before, ids)] + np.exp(single)) / (self._counts[before] + 1))
        pairs[begins] = single[begins]
        return np.stack([np.add.reduceat(single, begins), np.add.reduceat(pairs, begins)], axis=1).round(6)


def _new(tokens: Tokens, end: int, known: set[bytes]) -> Tokens:
    """The tokens of those documents that are not `known` yet, which they then are; `end` closes each."""
    parts = []
    for part in np.split(tokens, np.flatnonzero(tokens == end) + 1):
        key = hashlib.sha256(part.tobytes()).digest()
        if key not in known:
            parts.append(part)
            known.add(key)
    return np.concatenate(parts) if parts else tokens[:0]


def _tokens(store: Store, pool: str, card: PoolCard, source: str, level: str) -> Tokens:
    variant = card.sources[source].variants[level]
    return Shard(store.pool(pool) / f"{source}@{level}", "train", variant).beginning(TOKENS_READ)


def _token_table(path: Path, end: int) -> tuple[Bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bytes of all tokens in a row, and where in it each begins and how many they are; `end` is a line break."""
    words = spelled(path)
    words[end] = b"\n"
    sizes = np.array([len(one) for one in words], dtype=np.int64)
    return np.frombuffer(b"".join(words), dtype=np.uint8), np.cumsum(sizes) - sizes, sizes
