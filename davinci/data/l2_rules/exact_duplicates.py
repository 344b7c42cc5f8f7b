"""Documents whose text another one of the source has already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.operations import Corpus, CorpusOperation, Places, operation
from davinci.data.tally import Tally

_HASH = 16  # bytes of SHA-256: among 10^12 texts two share it with probability 10^-15
Hashes = npt.NDArray[np.bytes_]


@operation("exact_duplicates")
class ExactDuplicates(CorpusOperation):
    """Of documents with one text the first stays, in the order of the source. Memory holds 32 bytes a document."""

    level: ClassVar[Level] = "L2"

    def prepare(self, corpus: Corpus, places: Places) -> None:
        for source, parts in corpus.map(_survey).items():
            texts, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
            first = np.unique(texts, return_index=True)[1]
            later = np.ones(len(texts), dtype=bool)
            later[first] = False
            np.save(places.step / f"{source}.npy", np.sort(ids[later]))

    def run(self, documents: Iterator[Document], tally: Tally, places: Places, source: str) -> Iterator[Document]:
        dropped = set(np.load(places.step / f"{source}.npy", mmap_mode="r").tolist())
        for one in documents:
            if _hash(one.id) in dropped:
                tally.drop(one, "exact duplicate")
            else:
                yield one


def _survey(documents: Iterator[Document]) -> tuple[Hashes, Hashes]:
    """The hashes of texts and ids, S16[documents] each."""
    pairs = [(_hash(one.text), _hash(one.id)) for one in documents]
    texts, ids = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(texts, dtype=f"S{_HASH}"), np.array(ids, dtype=f"S{_HASH}")


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_HASH].rstrip(b"\0")  # as numpy gives it back
