"""What the operations share that drop a document for another one that came before."""

from __future__ import annotations

import functools
import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.long_texts import pieces
from davinci.data.operations import Corpus, CorpusOperation, Places
from davinci.data.tally import Tally

_HASH = 16  # bytes of SHA-256: among 10^12 texts two share it with probability 10^-15
Hashes = npt.NDArray[np.bytes_]


class AcrossDocuments(CorpusOperation):
    """What comes first stays: sources in order of name, documents in order of source."""

    level: ClassVar[Level] = "L2"

    across: Literal["source", "pool"] = "source"
    """Whether what another source of the pool has goes too."""

    @property
    def pool_wide(self) -> bool:  # type: ignore[override]  # a constant of other operations
        return self.across == "pool"


class Deduplication(AcrossDocuments):
    """Of documents that are the same the first stays. `prepare` writes who goes with `write_dropped`."""

    reason: ClassVar[str]

    def run(self, documents: Iterator[Document], tally: Tally, places: Places, source: str) -> Iterator[Document]:
        dropped = set(np.load(_file(places, source), mmap_mode="r").tolist())
        for one in documents:
            if hash_of(one.id) in dropped:
                tally.drop(one, self.reason)
            else:
                yield one


class KeyDeduplication(Deduplication):
    """Documents with one key are the same. Memory holds 32 bytes a document."""

    @abstractmethod
    def key(self, document: Document) -> str | None:
        """What makes it the same as another; None where nothing does."""

    def prepare(self, corpus: Corpus, places: Places) -> None:
        found = corpus.map(functools.partial(_survey, self))
        ids = {name: joined([ids for ids, _ in parts]) for name, parts in found.items()}
        keys = np.concatenate([joined([keys for _, keys in parts]) for parts in found.values()])
        later = np.ones(len(keys), dtype=bool)
        later[np.unique(keys, return_index=True)[1]] = False
        write_dropped(places, ids, later & (keys != b""))


def hash_of(text: str) -> bytes:
    """128 bits of a text, as numpy gives them back; never empty."""
    digest = hashlib.sha256()
    for piece in pieces(text):
        digest.update(piece.encode(errors="surrogatepass"))
    return digest.digest()[:_HASH].rstrip(b"\0") or b"\1"


def joined(parts: list[Hashes]) -> Hashes:
    """The hashes of parts of a source, one after another, S16[documents]."""
    return np.concatenate([np.array([], dtype=f"S{_HASH}"), *parts])


def as_hashes(hashes: list[bytes]) -> Hashes:
    """S16[documents]."""
    return np.array(hashes, dtype=f"S{_HASH}")


def write_dropped(places: Places, ids: dict[str, Hashes], goes: npt.NDArray[np.bool_]) -> None:
    """Write which documents go, by the hashes of ids of each source and a mask over all of them, one after another."""
    begin = 0
    for name, some in ids.items():
        np.save(_file(places, name), some[goes[begin : begin + len(some)]])
        begin += len(some)


def _file(places: Places, source: str) -> Path:
    return places.step / f"{source}.npy"


def _survey(operation: KeyDeduplication, documents: Iterator[Document]) -> tuple[Hashes, Hashes]:
    """The hashes of ids and keys; an empty one where there is no key."""
    ids, keys = [], []
    for one in documents:
        key = operation.key(one)
        ids.append(hash_of(one.id))
        keys.append(b"" if key is None else hash_of(key))
    return as_hashes(ids), as_hashes(keys)
