"""A built pool's card: what planning needs to know of it. Plain Python, no numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from davinci.config import Frozen, parse
from davinci.errors import UserError, nearest
from davinci.store import Store, read_json

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")
TokenType = Literal["uint16", "uint32", "int32", "int64"]
BYTES: dict[TokenType, int] = {"uint16": 2, "uint32": 4, "int32": 4, "int64": 8}


class TokenizerCard(Frozen):
    """The pool's tokenizer: file name in the pool's folder, SHA-256 and size, and the token that ends a text."""

    file: str
    digest: str
    vocab_size: int
    end_of_text: int = 0


class Extent(Frozen):
    """A stretch of a split's tokens: `tokens` of them from byte `byte` of a file of `size` bytes.

    `file` is a shard in the variant's folder, or by its absolute path another program's file, read where it lies.
    """

    file: str
    tokens: int
    size: int
    byte: int = 0


class VariantCard(Frozen):
    """One source at one Darwin Level.

    Sizes count the training split. `digest` covers everything in it, in which order, and not how it is cut into files.
    `extents` and `heldout_extents` are the files of each split in their order; without them it is one, ``train.bin``,
    ``heldout.bin``. Tokens are little-endian `dtype`, written with the tokenizer of digest `tokenizer` (null: by
    another program).

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
    tokenizer: str | None = None
    dtype: TokenType = "uint16"
    extents: tuple[Extent, ...] = ()
    heldout_extents: tuple[Extent, ...] = ()

    def files(self, split: Split) -> tuple[Extent, ...]:
        """Where the tokens of a split are."""
        given, tokens = (self.extents, self.tokens) if split == "train" else (self.heldout_extents, self.heldout_tokens)
        return given or (Extent(file=f"{split}.bin", tokens=tokens, size=tokens * BYTES[self.dtype]),)


class SourceCard(Frozen):
    """One source: where it came from, under which licence, and its variants by level.

    `archive` are the package archives read, `provenance` is what else its reader says of where the text came from.
    """

    domain: str
    licence: dict[str, Any]
    archive: dict[str, Any]
    provenance: Annotated[dict[str, Any], Field(default={})]
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


def built_card(store: Store, pool: str) -> PoolCard:
    """The card of `pool`.

    Raises:
        UserError: it is not built; where no pool of that name is known, the nearest one is named.
    """
    card = read_card(store, pool)
    if card is None:
        from davinci.data.pool_files import CONF

        known = {path.stem for path in (CONF / "pool").glob("*.yaml")}
        if pool not in known:
            known |= {path.parent.name for path in (store.root / "pools").glob("*/card.json")}
            raise UserError(
                f"pool {pool} is not built in {store.root}{nearest(pool, known)}"
                " (python -m davinci data build FILE builds one of your own)"
            )
        raise UserError(f"pool {pool} is not built in {store.root}; run: python -m davinci data build {pool}")
    return card
