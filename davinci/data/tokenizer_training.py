"""Trains a pool's own tokenizer: byte-level BPE, digits one by one."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from davinci.data.documents import Document
from davinci.data.tokenizer import END_OF_TEXT
from davinci.errors import UserError
from davinci.store import atomic_file

_SAMPLE_CHARACTERS = 1_200_000  # of each domain
_LONGEST_EXCERPT = 4_000


def train(documents: Mapping[str, Iterable[Document]], vocab_size: int, path: Path) -> None:
    """Train on equal samples of each domain's documents and write `path`. Same documents, same bytes.

    Memory holds the samples. Token 0 is the end of text.

    Raises:
        UserError: the text does not yield so many tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sample = [text for domain in sorted(documents) for text in _sample(documents[domain])]
    tokenizer.train_from_iterator(sample, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise UserError(f"the pool's text yields only {tokenizer.get_vocab_size()} of {vocab_size} tokens")
    with atomic_file(path) as temporary:
        tokenizer.save(str(temporary))


def _sample(documents: Iterable[Document]) -> Iterator[str]:
    """Beginnings of documents, in an order that has nothing to do with content, up to the sample's size."""
    kept: list[tuple[int, int, str]] = []  # the place in that order and the one in `documents`, negative; a heap
    size = 0
    for number, one in enumerate(documents):
        place = hashlib.sha256(f"{one.split_key}\0{one.id}".encode()).digest()
        heapq.heappush(kept, (-int.from_bytes(place, "big"), -number, one.text[:_LONGEST_EXCERPT]))
        size += min(_LONGEST_EXCERPT, len(one.text))
        while size - len(kept[0][2]) >= _SAMPLE_CHARACTERS:
            size -= len(heapq.heappop(kept)[2])
    left = _SAMPLE_CHARACTERS
    for _, _, text in sorted(kept, reverse=True):
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return
