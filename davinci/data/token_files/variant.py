"""Makes ``<source>@<depth>`` of tokens that another program wrote.

Held out are whole documents: the last ones of each of (up to) 16 equal stretches of documents, so that what is held out
comes from all over the source and what is left can be read in place, as a few long extents.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from davinci.data.cards import BYTES, Extent, TokenizerCard
from davinci.data.ordered import together
from davinci.data.shard_files import SHARD_TOKENS, IndexWriter, SplitWriter, content_digest
from davinci.data.token_files.given import CHUNK, Array, Documents, InPlace, mapped
from davinci.data.tokenizer import Encoder, token_bytes
from davinci.data.writing import finish_variant, new_variant, variant_card
from davinci.errors import UserError
from davinci.store import sync

STRETCHES = 16


def write_token_variant(
    folder: Path,
    given: InPlace | Documents,
    heldout_fraction: float,
    tokenizer: TokenizerCard,
    key: str,
    chain: Sequence[dict[str, Any]],
    where: str,
    shard_tokens: int = SHARD_TOKENS,
) -> dict[str, Any]:
    """Write `folder` in one step and return its part of the card (see `writing.write_variant`).

    Args:
        folder: ``<source>@<depth>`` in the pool's folder.
        given: what `TokenFiles.open` found.
        heldout_fraction: share of documents that are held out.
        tokenizer: what the tokens are of.
        key: what the folder is made from.
        chain: for the card.
        where: file and key of the tokens, for messages.
        shard_tokens: of a file, where tokens are copied.

    Raises:
        UserError: a token that the tokenizer does not have; one document, of which nothing can be held out.
    """
    encoder = Encoder(tokenizer, folder.parent)
    with new_variant(folder) as temporary:
        writer = _Writer(temporary, encoder, heldout_fraction, where, shard_tokens)
        card, files = writer.copy(given) if isinstance(given, Documents) else writer.refer(given)
        card |= {"chain": list(chain)}
        finish_variant(temporary, key, card, files)
    return card


def heldout_runs(documents: int, fraction: float, where: str) -> list[range]:
    """The numbers of the documents that are held out."""
    if fraction == 0:
        return []
    if documents < 2:
        raise UserError(
            f"{where}: {documents} document (nothing in it ends a text), so that none can be held out; was it written "
            "with this tokenizer?"
        )
    count = min(max(1, round(documents * fraction)), documents - 1)
    runs = min(STRETCHES, count) if 2 * count <= documents else 1
    found = []
    for run in range(runs):
        end = (run + 1) * documents // runs
        found.append(range(end - (count * (run + 1) // runs - count * run // runs), end))
    return found


class _Writer:
    def __init__(self, folder: Path, encoder: Encoder, fraction: float, where: str, shard_tokens: int) -> None:
        self._folder, self._encoder, self._fraction, self._where = folder, encoder, fraction, where
        self._shard_tokens = shard_tokens
        self._sizes = token_bytes(encoder.path)
        self._end = encoder.card.end_of_text

    def copy(self, given: Documents) -> tuple[dict[str, Any], dict[str, str]]:
        """Copy documents into shards of our own, each closed by an end of text."""
        runs = heldout_runs(given.count, self._fraction, self._where)
        train, heldout = (self._split(split, self._encoder.dtype) for split in ("train", "heldout"))
        sizes = {"train": 0, "heldout": 0}
        is_heldout = np.zeros(given.count, dtype=np.bool_)
        for run in runs:
            is_heldout[run.start : run.stop] = True
        with (self._folder / "heldout.jsonl").open("w", encoding="utf-8") as lines:
            for numbers, batch in self._batches(given):
                self._check(np.concatenate(batch))
                for split, writer, wanted in (("train", train, False), ("heldout", heldout, True)):
                    chosen = [
                        (number, one)
                        for number, one in zip(numbers, batch, strict=True)
                        if is_heldout[number] == wanted
                    ]
                    if chosen:
                        whole = np.concatenate([one for _, one in chosen])
                        writer.add(whole, np.array([[0, len(one)] for _, one in chosen], dtype=np.int64))
                        sizes[split] += int(self._sizes[whole].sum())
                    if wanted:
                        lines.writelines(self._line(number, one) for number, one in chosen)
        sync(self._folder / "heldout.jsonl")
        return variant_card(self._folder, train, sizes["train"], heldout, sizes["heldout"])

    def refer(self, given: InPlace) -> tuple[dict[str, Any], dict[str, str]]:
        """Keep where the tokens are; copy those of the held-out documents."""
        rows = _Chunks(given)
        with tempfile.TemporaryFile(dir=self._folder) as scratch:
            foreign = self._look_at(given, scratch)
            scratch.flush()
            ends = given.ends if given.ends is not None else _mapped_ends(scratch)
            runs = heldout_runs(len(ends), self._fraction, self._where)
            heldout = self._split("heldout", np.dtype(given.dtype))
            size = 0
            with (self._folder / "heldout.jsonl").open("w", encoding="utf-8") as lines:
                for number in (number for run in runs for number in run):
                    begin = int(ends[number - 1]) if number else 0
                    one = np.concatenate(list(rows.read(begin, int(ends[number]))))
                    heldout.add(one, np.array([[0, len(one)]], dtype=np.int64))
                    size += int(self._sizes[one].sum())
                    lines.write(self._line(number, one))
            sync(self._folder / "heldout.jsonl")
            kept = _between(runs, len(ends))
            spans = [(int(ends[one.start - 1]) if one.start else 0, int(ends[one.stop - 1])) for one in kept]
            index = IndexWriter(self._folder / "train.index.npy")
            before = 0
            for some, (begin, end) in zip(kept, spans, strict=True):
                for first in range(some.start, some.stop, CHUNK):
                    last = min(first + CHUNK, some.stop)
                    starts = np.concatenate([[ends[first - 1] if first else 0], ends[first : last - 1]])
                    index.add(starts.astype(np.int64) - begin + before)
                before += end - begin
        train_bytes, digest = 0, hashlib.sha256()
        for begin, end in spans:
            for part in rows.read(begin, end):
                digest.update(np.ascontiguousarray(part, dtype=np.dtype(given.dtype).newbyteorder("<")).data)
                train_bytes += int(self._sizes[part].sum())
        return self._card(given, rows, spans, index, (digest.hexdigest(), train_bytes), heldout, size, foreign)

    def _card(
        self,
        given: InPlace,
        rows: _Chunks,
        spans: list[tuple[int, int]],
        index: IndexWriter,
        train: tuple[str, int],
        heldout: SplitWriter,
        heldout_bytes: int,
        foreign: dict[str, str],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        documents, starts = index.count, index.close()
        extents, files, whole = heldout.close()
        lines = hashlib.sha256((self._folder / "heldout.jsonl").read_bytes()).hexdigest()
        whole |= {"train.bin": train[0], "train.index.npy": starts, "heldout.jsonl": lines}
        card = {
            "tokens": sum(end - begin for begin, end in spans),
            "documents": documents,
            "bytes": train[1],
            "extents": [one.model_dump() for span in spans for one in rows.extents(*span)],
            "heldout_tokens": heldout.tokens,
            "heldout_documents": heldout.documents,
            "heldout_bytes": heldout_bytes,
            "digest": content_digest(whole),
        }
        card |= {"heldout_extents": [one.model_dump() for one in extents]} if extents else {}
        card |= {} if given.dtype == "uint16" else {"dtype": given.dtype}
        return card, foreign | files | {"train.index.npy": starts, "heldout.jsonl": lines}

    def _look_at(self, given: InPlace, scratch: Any) -> dict[str, str]:
        """Check every token; write where documents end, where the index does not say; SHA-256 of each file."""
        foreign: dict[str, str] = {}
        place = last = 0
        for extent in given.extents:
            digest = hashlib.sha256()
            with Path(extent.file).open("rb") as file:
                digest.update(file.read(extent.byte))
            row = mapped(extent, given.dtype)
            for begin in range(0, len(row), CHUNK):
                part = row[begin : begin + CHUNK]
                digest.update(np.ascontiguousarray(part).data)
                self._check(part, extent.file, begin)
                if given.ends is None:
                    found = np.flatnonzero(part == self._end) + (place + begin + 1)
                    scratch.write(found.astype("<i8").tobytes())
                    last = int(found[-1]) if len(found) else last
            place += len(row)
            foreign[extent.file] = digest.hexdigest()
        if given.ends is None and last < place:  # the last document is open
            scratch.write(np.array([place], dtype="<i8").tobytes())
        return foreign

    def _check(self, tokens: Array, file: str = "", before: int = 0) -> None:
        size = self._encoder.card.vocab_size
        wrong = np.flatnonzero((tokens < 0) | (tokens >= size))
        if len(wrong):
            at = f" in {file} at token {before + int(wrong[0]):,}" if file else ""
            raise UserError(
                f"{self._where}: id {int(tokens[wrong[0]])}{at}, but the tokenizer ({self._encoder.card.digest[:12]}) "
                f"has ids below {size}; they are another tokenizer's, or of another dtype"
            )

    def _batches(self, given: Documents) -> Iterator[tuple[range, list[Array]]]:
        """Documents with their numbers, each closed by an end of text, some millions of tokens at a time."""
        closed = (one if len(one) and one[-1] == self._end else np.append(one, self._end) for one in given.read())
        done = 0
        for batch in together((one.astype(np.int64) for one in closed), len, CHUNK):
            yield range(done, done + len(batch)), batch
            done += len(batch)

    def _split(self, split: Any, dtype: np.dtype[Any]) -> SplitWriter:
        return SplitWriter(self._folder, split, dtype, self._shard_tokens)

    def _line(self, number: int, tokens: Array) -> str:
        return json.dumps({"id": str(number), "text": self._encoder.decode(tokens)}, sort_keys=True) + "\n"


class _Chunks:
    """Tokens in place, by their number from the first."""

    def __init__(self, given: InPlace) -> None:
        self._given = given
        self._rows = [mapped(one, given.dtype) for one in given.extents]
        self._ends = np.cumsum([len(one) for one in self._rows]).tolist()

    def read(self, begin: int, end: int) -> Iterator[Array]:
        """Tokens `begin` to `end`, a piece at a time."""
        for row, last in zip(self._rows, self._ends, strict=True):
            first = last - len(row)
            for place in range(max(begin, first), min(end, last), CHUNK):
                yield row[place - first : min(place + CHUNK, end, last) - first]

    def extents(self, begin: int, end: int) -> Iterator[Extent]:
        """Where tokens `begin` to `end` are."""
        width = BYTES[self._given.dtype]
        for one, last in zip(self._given.extents, self._ends, strict=True):
            first = last - one.tokens
            low, high = max(begin, first), min(end, last)
            if low < high:
                yield one.model_copy(update={"byte": one.byte + (low - first) * width, "tokens": high - low})


def _mapped_ends(scratch: Any) -> Array:
    size = scratch.tell()
    return np.memmap(scratch, dtype="<i8", mode="r") if size else np.zeros(0, dtype=np.int64)


def _between(runs: list[range], documents: int) -> list[range]:
    """What `runs` leave of the documents."""
    bounds = [0, *(edge for run in runs for edge in (run.start, run.stop)), documents]
    return [range(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=True) if a < b]
