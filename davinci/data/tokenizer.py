"""The pool's tokenizer: byte-level BPE, digits one by one, trained on the pool itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from davinci.data.documents import Document
from davinci.errors import UserError
from davinci.store import atomic_file

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
_SAMPLE_CHARACTERS = 1_200_000  # of each domain
_LONGEST_EXCERPT = 4_000
_BATCH_CHARACTERS = 4_000_000


def train(documents: dict[str, list[Document]], vocab_size: int, path: Path) -> None:
    """Train on equal samples of each domain's documents and write `path`. Same documents, same bytes."""
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
    left = _SAMPLE_CHARACTERS
    for one in sorted(documents, key=lambda one: hashlib.sha256(f"{one.split_key}\0{one.id}".encode()).digest()):
        yield one.text[: min(_LONGEST_EXCERPT, left)]
        left -= min(_LONGEST_EXCERPT, len(one.text))
        if left <= 0:
            return


# Between two newlines before a letter: the tokenizer never joins what stands on both sides of such a place, so that
# paragraphs can be encoded apart. (Before a digit or a blank it would.)
_SEAM = re.compile(r"(?<=\n)(?=\n[A-Za-z])")


def _pieces(text: str) -> list[str]:
    return _SEAM.split(text)


class Encoder:
    """Encodes texts paragraph by paragraph, each different paragraph once."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._known: dict[str, np.ndarray[tuple[int], np.dtype[np.uint16]]] = {}

    def add(self, texts: Iterable[str]) -> None:
        """Encode those of `texts` that are not known yet."""
        batch: list[str] = []
        size = 0
        for piece in dict.fromkeys(piece for text in texts for piece in _pieces(text)):
            if piece not in self._known:
                batch.append(piece)
                size += len(piece)
            if size > _BATCH_CHARACTERS:
                self._encode(batch)
                batch, size = [], 0
        self._encode(batch)

    def __getitem__(self, text: str) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
        """The tokens of an added text, uint16[n]."""
        pieces = [self._known[piece] for piece in _pieces(text)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _encode(self, batch: Sequence[str]) -> None:
        encodings = self._tokenizer.encode_batch_fast(list(batch), add_special_tokens=False)
        for text, encoding in zip(batch, encodings, strict=True):
            self._known[text] = np.array(encoding.ids, dtype=np.uint16)


def token_bytes(path: Path) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Bytes of text that each token stands for, int64[vocab]; 0 for the end of text.

    In a byte-level vocabulary each character of a token's name is one byte.
    """
    vocabulary: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    sizes = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for token, index in vocabulary.items():
        sizes[index] = 0 if token == END_OF_TEXT else len(token)
    return sizes
