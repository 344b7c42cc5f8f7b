"""One source at one depth, from the documents that its chain left to shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davinci.config import parse
from davinci.data.cards import SPLITS, TokenizerCard, VariantCard
from davinci.data.keys import digest
from davinci.data.token_files.given import TokenFiles
from davinci.data.token_files.variant import write_token_variant
from davinci.data.writing import read_variant as read_record
from davinci.data.writing import write_variant


@dataclass(frozen=True)
class Variant:
    """`parts` are the documents of each part, in order, `folder` is ``<source>@<depth>``; `key` says what its text is
    made of."""

    folder: Path
    parts: tuple[Path, ...]
    heldout_fraction: float
    key: str

    @property
    def size(self) -> int:
        """Bytes of its documents as they are kept."""
        return sum(path.stat().st_size for path in self.parts)

    def write(
        self, tokenizer: TokenizerCard, steps: list[dict[str, Any]], documents_digest: str | None, workers: int
    ) -> None:
        """Write it, with its part of the card; `steps` are the operations that led here."""
        key, split = self._whole_key(tokenizer), self.heldout_fraction
        write_variant(self.folder, self.parts, split, tokenizer, key, steps, workers, documents_digest=documents_digest)

    def read(self, tokenizer: TokenizerCard) -> VariantCard | None:
        """Its part of the card, where its shards are there in their full size, made of these documents."""
        return _read(self.folder, self._whole_key(tokenizer))

    def _whole_key(self, tokenizer: TokenizerCard) -> str:
        return f"{self.key} {tokenizer.digest}"


@dataclass(frozen=True)
class TokenVariant:
    """A variant of tokens that another program wrote; `root` is what their paths start from, `where` the file and key
    that name them."""

    folder: Path
    tokens: TokenFiles
    root: Path
    heldout_fraction: float
    where: str

    @property
    def size(self) -> int:
        return 0  # nothing is encoded

    def write(
        self, tokenizer: TokenizerCard, steps: list[dict[str, Any]], documents_digest: str | None, workers: int
    ) -> None:
        """Write it, or where its tokens are."""
        given = self.tokens.open(self.root, tokenizer, self.where)
        write_token_variant(
            self.folder, given, self.heldout_fraction, tokenizer, self._key(tokenizer), steps, self.where
        )

    def read(self, tokenizer: TokenizerCard) -> VariantCard | None:
        """Its part of the card, where every file has its size."""
        return _read(self.folder, self._key(tokenizer))

    def _key(self, tokenizer: TokenizerCard) -> str:
        """Of the format's parameters, and of the size and time of every file."""
        found = [
            [str(path), one.stat().st_size, one.stat().st_mtime_ns]
            for path in self.tokens.paths(self.root)
            for one in (sorted(path.rglob("*")) if path.is_dir() else [path])
            if one.is_file()
        ]
        said = type(self.tokens).__name__, self.tokens.model_dump(mode="json"), self.heldout_fraction
        return digest([said, found, tokenizer.digest])


def _read(folder: Path, key: str) -> VariantCard | None:
    record = read_record(folder, key)
    if record is None:
        return None
    card = parse(VariantCard, record, where=lambda key: str(folder))
    files = {folder / one.file: one.size for split in SPLITS for one in card.files(split)}
    return card if all(path.is_file() and path.stat().st_size == size for path, size in files.items()) else None
