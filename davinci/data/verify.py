"""Whether a pool's files are what was written: every checksum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from davinci.data.cards import PoolCard, VariantCard, built_card
from davinci.data.checksums import RECORD, recorded, wrong
from davinci.data.shards import question_file
from davinci.store import Store


def verify(pool: str, store: Store, progress: Callable[[str], None]) -> list[str]:
    """What is wrong, a line a file; `progress` gets the name of each file before it is read.

    Raises:
        UserError: the pool is not built.
    """
    folder = store.pool(pool)
    card = built_card(store, pool)
    return [*_tokenizer(folder, card, progress), *_variants(folder, card, progress)]


def _tokenizer(folder: Path, card: PoolCard, progress: Callable[[str], None]) -> Iterator[str]:
    path = folder / card.tokenizer.file
    progress(str(path))
    yield from wrong(path, card.tokenizer.digest)


def _variants(folder: Path, card: PoolCard, progress: Callable[[str], None]) -> Iterator[str]:
    for name, source in sorted(card.sources.items()):
        for depth, variant in sorted(source.variants.items()):
            place = folder / f"{name}@{depth}"
            files = recorded(place)
            if not files:
                yield f"{place / RECORD}: missing, or without checksums; build the pool again"
                continue
            for file, digest in files.items():
                progress(str(place / file))
                yield from wrong(place / file, digest)
            for one in (*variant.files("train"), *variant.files("heldout")):
                if one.file not in files:
                    yield f"{place / one.file}: the card names it, {RECORD} has no checksum of it"
            yield from _unknown(place, variant, files)


def _unknown(place: Path, variant: VariantCard, files: dict[str, str]) -> Iterator[str]:
    """Question marks that were not written with the shards would be read with them."""
    for one in (*variant.files("train"), *variant.files("heldout")):
        marks = question_file(place / one.file)
        if marks.exists() and marks.name not in files:
            yield f"{marks}: not written with the shards; remove it"
