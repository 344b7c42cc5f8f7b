"""Which documents hold items of evaluation sets, by rows of words (n-grams) they have in common.

An item stands in a document where some `n` words in a row of it do: 13 of them, lower case, as in GPT-3 (arXiv
2005.14165, appendix C). With `share` a document must hold that much of the item's rows, as PaLM asks for 70% of its
8-grams (arXiv 2204.02311, section 7) and Tulu 3 for half of what it matches by 8-grams (arXiv 2411.15124, section 3.2).
An item of fewer than `n` words is one row, all its words; of fewer than `SHORTEST` (the least n that GPT-3 takes) it is
not looked for, since any text may hold it. Punctuation is left out, as there. An item's text is its question with its
right answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from davinci.data.ngrams import Bytes, Grams, Numbers, row_hashes
from davinci.data.ordered import together
from davinci.errors import UserError
from davinci.store import file_digest

N = 13
SHORTEST = 8
# Documents are looked through so many bytes at a time; a longer one in pieces that share so many.
_BATCH, _OVERLAP = 1 << 22, 1 << 16

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BenchmarkItem:
    """One item of an evaluation set: `text` is its question with its right answer."""

    benchmark: str
    id: str
    text: str


@dataclass(frozen=True)
class Hit:
    """`item` (an index) stands in a document: with this share of its rows, the first of them at these bytes."""

    item: int
    share: float
    begin: int
    end: int


class Items:
    """Evaluation items, ready to be looked for.

    Args:
        items: in any order.
        n: words of a row.
        share: of an item's rows that a document must hold, above one row; 0 asks for one.
    """

    def __init__(self, items: Iterable[BenchmarkItem], n: int = N, share: float = 0.0) -> None:
        self.items = list(items)
        self.share = share
        rows, owners = _rows([_plain(one.text.encode()) for one in self.items], n)
        self._grams = Grams(rows, marks=False)
        numbers = [self._grams.numbers(length, hashes) for length, hashes in rows.items()] or [_NONE]
        # A row of an item counts once: pairs of row and item, each as one number.
        pairs = np.unique(np.concatenate(numbers) * len(self.items) + np.concatenate([*owners.values()] or [_NONE]))
        row, self._items = np.divmod(pairs, max(1, len(self.items)))
        self.sizes = np.bincount(self._items, minlength=len(self.items))  # 0: too short
        self._first = np.searchsorted(row, np.arange(self._grams.count + 1))

    def hits(self, texts: Sequence[bytes]) -> list[list[Hit]]:
        """For each text, in UTF-8, the items that stand in it, in their order."""
        plain = [_plain(text) for text in texts]
        found = [np.concatenate(parts) for parts in zip(*_found(self._grams, plain), strict=True)] or [_NONE] * 4
        documents, numbers, begins, ends = found
        hits: list[list[Hit]] = [[] for _ in texts]
        order = np.lexsort((begins, numbers, documents))
        documents, numbers, begins, ends = (one[order] for one in (documents, numbers, begins, ends))
        new = np.ones(len(documents), dtype=np.bool_)  # a row counts once a document
        new[1:] = (documents[1:] != documents[:-1]) | (numbers[1:] != numbers[:-1])
        documents, numbers, begins, ends = (one[new] for one in (documents, numbers, begins, ends))
        users = self._first[numbers + 1] - self._first[numbers]
        items = self._items[
            np.repeat(self._first[numbers] - (np.cumsum(users) - users), users) + np.arange(users.sum())
        ]
        documents, begins, ends = (np.repeat(one, users) for one in (documents, begins, ends))
        order = np.lexsort((begins, items, documents))
        documents, items, begins, ends = (one[order] for one in (documents, items, begins, ends))
        first = np.flatnonzero(np.diff(documents, prepend=-1) | np.diff(items, prepend=-1))
        counts = np.diff(first, append=len(items))
        for at, count in zip(first.tolist(), counts.tolist(), strict=True):
            item = int(items[at])
            share = count / int(self.sizes[item])
            if share >= self.share:
                hits[int(documents[at])].append(Hit(item, share, int(begins[at]), int(ends[at])))
        return hits


_NONE: Ints = np.zeros(0, dtype=np.int64)


def _plain(text: bytes) -> bytes:
    """Punctuation beyond ASCII (quotation marks, dashes, the ellipsis, hard spaces) as blanks, as many bytes."""
    for lead, marks in _MARKS.items():
        if lead in text:
            for mark in marks:
                text = text.replace(mark, b" " * len(mark))
    return text


_MARKS = {
    b"\xe2\x80": [chr(code).encode() for code in (*range(0x2010, 0x2016), *range(0x2018, 0x201F), 0x2022, 0x2026)],
    b"\xc2": [chr(code).encode() for code in (0xA0, 0xAB, 0xB7, 0xBB)],
    b"\xe3\x80": [chr(code).encode() for code in (0x3000, 0x3001, 0x3002)],
}


def _rows(texts: Sequence[bytes], n: int) -> tuple[dict[int, Numbers], dict[int, Ints]]:
    """By length the hashes of the rows of all texts, and which text each is of."""
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
    joined = np.frombuffer(b"\n".join(texts), dtype=np.uint8)
    lengths = range(min(n, SHORTEST), n + 1)
    hashes, begins = row_hashes(joined, lengths, marks=False)
    owner = np.searchsorted(starts, begins, side="right") - 1
    sizes = np.bincount(owner, minlength=len(texts))
    rows, owners = {}, {}
    for length, found in hashes.items():
        own = owner[: len(found)]
        whole = own == owner[length - 1 :]  # of one text
        if length < n:
            whole &= sizes[own] == length
        rows[length], owners[length] = found[whole], own[whole]
    return rows, owners


def _found(grams: Grams, texts: Sequence[bytes]) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """(text, row, begin, end) of every row found in one, batch after batch."""
    for batch in _batches(texts):
        joined = np.frombuffer(b"\n".join(piece for _, _, piece in batch), dtype=np.uint8)
        sizes = np.array([len(piece) for _, _, piece in batch], dtype=np.int64)
        starts = np.cumsum(sizes + 1) - sizes - 1
        numbers, begins, ends = grams.find(joined)
        places = np.searchsorted(starts, begins, side="right") - 1
        inside = ends <= starts[places] + sizes[places]  # a row that runs on into the next document stands in none
        numbers, begins, ends, places = (one[inside] for one in (numbers, begins, ends, places))
        shift = np.array([offset for _, offset, _ in batch], dtype=np.int64)[places] - starts[places]
        yield np.array([index for index, _, _ in batch], dtype=np.int64)[places], numbers, begins + shift, ends + shift


def _batches(texts: Sequence[bytes]) -> Iterator[list[tuple[int, int, bytes]]]:
    """(text, offset in it, piece) in batches of about `_BATCH` bytes."""
    batch: list[tuple[int, int, bytes]] = []
    size = 0
    for index, text in enumerate(texts):
        for offset in range(0, max(1, len(text) - _OVERLAP), _BATCH - _OVERLAP):
            piece = text[offset : offset + _BATCH]
            if size + len(piece) > _BATCH and batch:
                yield batch
                batch, size = [], 0
            batch.append((index, offset, piece))
            size += len(piece)
    if batch:
        yield batch


def read_items(path: Path) -> list[BenchmarkItem]:
    """The items of a JSONL file (``benchmark``, ``id``, ``text`` a line), or of every one in a folder.

    Without ``benchmark`` an item is of the file's name, without ``id`` it has its line's number.

    Raises:
        UserError: nothing there, or a line that is no item.
    """
    found = []
    for file in _files(path):
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            if line.strip():
                found.append(_item(file, number, line))
    if not found:
        raise UserError(f"{path}: holds no items; a line is a JSON object with benchmark, id and text")
    return found


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise UserError(
            f"{path}: no evaluation items are there; python -m davinci data items SUITE writes those of a suite"
        )
    return files


def _item(file: Path, number: int, line: bytes) -> BenchmarkItem:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        row = None
    if not isinstance(row, Mapping) or not isinstance(row.get("text"), str):
        raise UserError(f"{file}:{number}: no item; a line is a JSON object with benchmark, id and text")
    return BenchmarkItem(str(row.get("benchmark", file.stem)), str(row.get("id", number)), row["text"])


def items_digest(path: Path) -> str:
    """Of the file, or of every file of the folder."""
    lines = "".join(f"{file.name} {file_digest(file)}\n" for file in _files(path))
    return hashlib.sha256(lines.encode()).hexdigest()


class Report:
    """What of a pool and a suite overlap: add sources, then ask for the whole.

    `samples` are kept of each source: the first documents that are hit.
    """

    def __init__(self, items: Items, samples: int = 3) -> None:
        self._items, self._samples = items, samples
        self._hit: set[int] = set()
        self._sources: list[dict[str, Any]] = []

    def add(self, source: str, level: str, documents: Iterable[Bytes]) -> None:
        """Look through the documents of one source at one level, each uint8[n] of UTF-8."""
        row: dict[str, Any] = {"source": source, "level": level, "documents": 0, "bytes": 0, "hit": 0, "samples": []}
        own: set[int] = set()
        for number, text, hits in self._look(documents):
            row["documents"] += 1
            row["bytes"] += len(text)
            if hits:
                row["hit"] += 1
                own.update(hit.item for hit in hits)
                if len(row["samples"]) < self._samples:
                    row["samples"].append(self._sample(number, text, max(hits, key=lambda hit: hit.share)))
        self._hit |= own
        self._sources.append(row | {"items": len(own)})

    def _look(self, documents: Iterable[Bytes]) -> Iterator[tuple[int, bytes, list[Hit]]]:
        done = 0
        for batch in together((one.tobytes() for one in documents), len, _BATCH):
            yield from zip(range(done, done + len(batch)), batch, self._items.hits(batch), strict=True)
            done += len(batch)

    def _sample(self, number: int, text: bytes, hit: Hit) -> dict[str, Any]:
        item = self._items.items[hit.item]
        return {
            "document": number,
            "benchmark": item.benchmark,
            "item": item.id,
            "share": round(hit.share, 4),
            "text": text[hit.begin : hit.end].decode("utf-8", "replace"),
        }

    def to_json(self) -> dict[str, Any]:
        """Of each benchmark items, those too short to be looked for, and those hit; of each source documents hit."""
        benchmarks: dict[str, dict[str, Any]] = {}
        for at, one in enumerate(self._items.items):
            row = benchmarks.setdefault(one.benchmark, {"items": 0, "too_short": 0, "hit": 0})
            row["items"] += 1
            row["too_short"] += int(self._items.sizes[at] == 0)
            row["hit"] += int(at in self._hit)
        for row in benchmarks.values():
            row["share"] = round(row["hit"] / row["items"], 6)
        return {"benchmarks": benchmarks, "sources": self._sources}
