"""One source at one depth, from the documents that its chain left to shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davinci.config import parse
from davinci.data.cards import TokenizerCard, VariantCard
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

    def write(self, tokenizer: TokenizerCard, steps: list[dict[str, Any]], documents_digest: str, workers: int) -> None:
        """Write it, with its part of the card; `steps` are the operations that led here."""
        key, split = self._whole_key(tokenizer), self.heldout_fraction
        write_variant(self.folder, self.parts, split, tokenizer, key, steps, workers, documents_digest=documents_digest)

    def read(self, tokenizer: TokenizerCard) -> VariantCard | None:
        """Its part of the card, where its shards are there in their full size, made of these documents."""
        record = read_record(self.folder, self._whole_key(tokenizer))
        if record is None:
            return None
        card = parse(VariantCard, record)
        files = {self.folder / one.file: one.size for split in ("train", "heldout") for one in card.files(split)}
        return card if all(path.is_file() and path.stat().st_size == size for path, size in files.items()) else None

    def _whole_key(self, tokenizer: TokenizerCard) -> str:
        return f"{self.key} {tokenizer.digest}"
