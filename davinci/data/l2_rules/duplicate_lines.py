"""Lines that documents repeat: menus, notices, licences."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import xxhash

from davinci.config.base import NotNegative
from davinci.data.documents import Document
from davinci.data.l2_rules.deduplication import AcrossDocuments
from davinci.data.operations import Corpus, Places, operation
from davinci.data.tally import Tally

# The lines of a part, once each: hash, how often, hash of the id of the first document with it.
Lines = npt.NDArray[np.void]
_LINE = np.dtype([("line", np.uint64), ("times", np.int64), ("owner", np.uint64)])


@operation("duplicate_lines")
class DuplicateLines(AcrossDocuments):
    """A line stays where it comes first and goes everywhere else, also in the same document (exact, after stripping).

    As CCNet does with paragraphs (Wenzek et al., arXiv 1911.00359, section 4.1), but for lines shorter than
    `min_characters`, which stay. A document without a line left goes. Memory holds 24 bytes a line that is different.
    """

    min_characters: NotNegative = 30

    def prepare(self, corpus: Corpus, places: Places) -> None:
        found = corpus.map(functools.partial(_survey, self))
        merged = _merged([part for parts in found.values() for part in parts])
        np.save(places.step / "repeated.npy", merged[merged["times"] > 1])

    def run(self, documents: Iterator[Document], tally: Tally, places: Places, source: str) -> Iterator[Document]:
        repeated = np.load(places.step / "repeated.npy", mmap_mode="r")
        known = np.ascontiguousarray(repeated["line"])
        for one in documents:
            lines = one.text.split("\n")
            hashes = self.hashes(lines)
            at = np.searchsorted(known, hashes)
            again = np.flatnonzero((hashes != 0) & (at < len(known)))
            again = again[known[at[again]] == hashes[again]]
            if not len(again):
                yield one
                continue
            owner = _id_hash(one)
            seen: set[int] = set()
            goes: set[int] = set()
            for index in again.tolist():
                line = int(hashes[index])
                if int(repeated["owner"][at[index]]) != owner or line in seen:
                    goes.add(index)
                seen.add(line)
            tally.count("duplicate lines", len(goes))
            text = "\n".join(line for index, line in enumerate(lines) if index not in goes)
            if not text or text.isspace():
                tally.drop(one, "nothing but duplicate lines")
            else:
                yield replace(one, text=text) if goes else one

    def hashes(self, lines: list[str]) -> npt.NDArray[np.uint64]:
        """A hash of each line, 0 for one too short to count."""
        stripped = map(str.strip, lines)
        hashed = [
            (xxhash.xxh64_intdigest(line.encode(errors="surrogatepass")) or 1)
            if line and len(line) >= self.min_characters
            else 0
            for line in stripped
        ]
        return np.array(hashed, dtype=np.uint64)


def _survey(operation: DuplicateLines, documents: Iterator[Document]) -> Lines:
    parts: list[Lines] = []
    waiting = 0
    for one in documents:
        hashes = operation.hashes(one.text.split("\n"))
        hashes = hashes[hashes != 0]
        lines = np.empty(len(hashes), dtype=_LINE)
        lines["line"], lines["times"], lines["owner"] = hashes, 1, _id_hash(one)
        parts.append(lines)
        waiting += len(lines)
        if waiting > 1 << 20:
            parts, waiting = [_merged(parts)], 0
    return _merged(parts)


def _merged(parts: list[Lines]) -> Lines:
    """One line after another by hash; of equal ones the first's owner and all their times."""
    lines = np.concatenate([np.empty(0, dtype=_LINE), *parts])
    _, first, place = np.unique(lines["line"], return_index=True, return_inverse=True)
    merged = lines[first]
    merged["times"] = np.bincount(place, weights=lines["times"], minlength=len(first)).astype(np.int64)
    return merged


def _id_hash(document: Document) -> int:
    return int(xxhash.xxh64_intdigest(document.id.encode(errors="surrogatepass")))
