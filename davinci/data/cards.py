"""A built pool's card: what planning needs to know of it. Plain Python, no numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from davinci.config import Frozen, parse
from davinci.store import Store, read_json


class TokenizerCard(Frozen):
    """The pool's tokenizer: file name in the pool's folder, SHA-256 and size."""

    file: str
    digest: str
    vocab_size: int


class VariantCard(Frozen):
    """One source at one Darwin Level. Sizes count the training split; `digest` covers every shard file.

    `documents_digest` is of the set of its documents' ids, whatever their texts: equal where two levels hold the same
    documents. Null in the cards of pools built before it was written.
    """

    digest: str
    tokens: int
    documents: int
    bytes: int
    heldout_tokens: int
    heldout_documents: int
    heldout_bytes: int
    chain: tuple[dict[str, Any], ...]
    documents_digest: str | None = None


class SourceCard(Frozen):
    """One source: where it came from, under which licence, and its variants by level."""

    domain: str
    licence: dict[str, Any]
    archive: dict[str, Any]
    variants: dict[str, VariantCard]


class PoolCard(Frozen):
    """A pool as built in a store."""

    name: str
    tokenizer: TokenizerCard
    sources: dict[str, SourceCard]


def measured_level(levels: Iterable[str]) -> str:
    """Of a source's levels the one whose held-out documents everything is measured on, whatever a run trains on.

    It is the deepest that no model had a say in (Level 2), so that no arm is measured on what its own filter chose; of
    a source that has none such, the shallowest.
    """
    found = sorted(levels)
    return max((level for level in found if level <= "L2"), default=found[0])


def heldout_digest(card: PoolCard, domain: str) -> str:
    """A digest of the text that `domain` is measured on: of the contents of its sources at the level measured."""
    rows = []
    for name, source in sorted(card.sources.items()):
        if source.domain == domain:
            level = measured_level(source.variants)
            rows.append(f"{name} {level} {source.variants[level].digest}\n")
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def read_card(store: Store, pool: str) -> PoolCard | None:
    """The card of `pool`, or None where it is not built."""
    path = store.pool(pool) / "card.json"
    if not path.exists():
        return None
    return parse(PoolCard, read_json(path), where=lambda key: str(path))
