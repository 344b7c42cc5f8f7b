"""Documents that hold items of the evaluation sets in use are taken out."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field

from davinci.config import Level
from davinci.config.base import Positive
from davinci.data.contamination import Items, N, items_digest, read_items
from davinci.data.documents import Document
from davinci.data.operations import Places, StreamOperation, operation
from davinci.data.ordered import together
from davinci.data.tally import Tally

_BATCH = 1 << 22  # characters of documents looked through at once


@operation("decontaminated")
class Decontaminated(StreamOperation):
    """Drops a document in which an evaluation item stands (`davinci.data.contamination` says when, and after whom).

    `suite` names items that ``python -m davinci data items`` wrote into the store, or is a JSONL file or a folder of
    them, relative to the pool's file. `n` and `share` as there. `digest` is of the items, filled in when they are
    found: other items make another source.
    """

    level: ClassVar[Level] = "L2"
    neutral: ClassVar[frozenset[str]] = frozenset({"suite"})

    suite: Annotated[str, Field(min_length=1)]
    n: Positive = N
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    digest: str = ""

    def located(self, places: Places) -> Self:
        path = self._path(places)
        return self.model_copy(update={"suite": str(path), "digest": items_digest(path)})

    def run(self, documents: Iterator[Document], tally: Tally, places: Places) -> Iterator[Document]:
        items = _items(self._path(places), self.n, self.share)
        for batch in together(documents, lambda one: len(one.text), _BATCH):
            yield from _clean(batch, items, tally)

    def _path(self, places: Places) -> Path:
        written = places.archives.parent / "items" / f"{self.suite}.jsonl"
        given = places.root / Path(self.suite).expanduser()
        return written if written.is_file() or not (given.exists() or "/" in self.suite or "." in self.suite) else given


def _clean(batch: list[Document], items: Items, tally: Tally) -> Iterator[Document]:
    for document, hits in zip(batch, items.hits([one.text.encode() for one in batch]), strict=True):
        if hits:
            tally.drop(document, f"holds {items.items[max(hits, key=lambda hit: hit.share).item].benchmark}")
        else:
            yield document


@functools.lru_cache(maxsize=2)
def _items(path: Path, n: int, share: float) -> Items:
    """Once a process, whatever the number of parts it works on."""
    return Items(read_items(path), n, share)
