"""One source at one depth, from the documents that its chain left to shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davinci.data.cards import TokenizerCard
from davinci.data.document_files import read_documents
from davinci.data.documents import Document
from davinci.data.tokenizer import Encoder
from davinci.data.writing import RECORD, write_variant
from davinci.data.writing import read_variant as read_record
from davinci.store import read_json, write_json


@dataclass(frozen=True)
class Variant:
    """`files` are the documents of each part, `folder` is ``<source>@<depth>``; `key` says what its text is made of."""

    source: str
    folder: Path
    files: tuple[Path, ...]
    heldout_fraction: float
    key: str

    def documents(self) -> Iterator[Document]:
        """In the order in which they are stored."""
        for path in self.files:
            yield from read_documents(path)


def write_variants(work: list[tuple[Variant, list[dict[str, Any]]]], tokenizer: TokenizerCard, folder: Path) -> None:
    """Write the depths of one source, each with its part of the card (in a worker process)."""
    encoder = Encoder(folder / tokenizer.file)
    for one, steps in work:
        documents = list(one.documents())
        encoder.add(part for one in documents for part in (one.question, one.text.removeprefix(one.question)))
        write_variant(one.folder, documents, one.heldout_fraction, encoder, _key(one, tokenizer.digest), steps)
        record = read_json(one.folder / RECORD)
        record["card"]["documents_digest"] = _documents_digest(documents, one.heldout_fraction)
        write_json(one.folder / RECORD, record)


def _documents_digest(documents: list[Document], heldout_fraction: float) -> str:
    """Of the set of ids of the training documents: the sum of their SHA-256 digests, modulo 2^256."""
    total = sum(
        int.from_bytes(hashlib.sha256(one.id.encode()).digest(), "big")
        for one in documents
        if not one.is_heldout(heldout_fraction)
    )
    return f"{total % 2**256:064x}"


def read_variant(one: Variant, tokenizer: str) -> dict[str, Any]:
    """The part of the card of what is written; empty where it is not."""
    return read_record(one.folder, _key(one, tokenizer)) or {}


def is_written(one: Variant, tokenizer: str) -> bool:
    """Whether its shards are there, made of these documents by the tokenizer of that digest, in their full size."""
    card = read_variant(one, tokenizer)
    sizes = {"train.bin": card.get("tokens"), "heldout.bin": card.get("heldout_tokens")}
    return bool(card) and all(
        (one.folder / name).is_file() and (one.folder / name).stat().st_size == 2 * (count or 0)
        for name, count in sizes.items()
    )


def _key(one: Variant, tokenizer: str) -> str:
    return f"{one.key} {tokenizer}"
