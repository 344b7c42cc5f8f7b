"""Writes one source at one level, from document files of any size: tokens, document starts, questions, held-out text.

Row groups of the document files are encoded by worker processes and written in their order, so that what is written
depends neither on how many there are nor on how large a shard is.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from davinci.data.cards import TokenizerCard
from davinci.data.checksums import RECORD
from davinci.data.document_files import count_groups, read_group
from davinci.data.documents import Document, size_of
from davinci.data.shard_files import SHARD_TOKENS, SplitWriter, content_digest
from davinci.data.tokenizer import Encoder
from davinci.data.workers import begin
from davinci.store import file_digest, read_json, sync, write_json

_COLUMNS = ["id", "split_key", "text", "question", "fields"]
# Tasks under way for each worker: enough to keep it busy, few enough to keep memory small.
_AHEAD = 2


def write_variant(
    folder: Path,
    parts: Sequence[Path],
    heldout_fraction: float,
    tokenizer: TokenizerCard,
    key: str,
    chain: Sequence[dict[str, Any]],
    workers: int = 1,
    shard_tokens: int = SHARD_TOKENS,
    documents_digest: str | None = None,
) -> dict[str, Any]:
    """Write `folder` in one step (temporary folder, rename) and return its part of the card, kept in ``variant.json``.

    Args:
        folder: ``<source>@<depth>`` in the pool's folder, which also holds the tokenizer's file.
        parts: document files (`document_files`), in the order in which they are stored.
        heldout_fraction: share of split keys that are held out.
        tokenizer: encodes every document, its question and the rest apart where it has a question.
        key: what the folder was made from; `read_variant` returns it only for the same key.
        chain: the operations that made the documents, for the card.
        workers: processes that encode; with 1 this one does, on as many threads as the library takes.
        shard_tokens: of a file.
        documents_digest: of the documents' ids, for the card.

    Raises:
        UserError: the tokenizer's file is not the one its card means.
    """
    path = folder.parent / tokenizer.file
    # Before anything is written.
    encoder = _encoder(tokenizer, folder.parent, path.stat().st_mtime_ns if path.is_file() else 0)
    with new_variant(folder) as temporary:
        train = SplitWriter(temporary, "train", encoder.dtype, shard_tokens)
        heldout = _Heldout(temporary)
        train_bytes = 0
        for one in _encoded(parts, encoder, heldout_fraction, workers):
            train.add(one.tokens, one.lengths)
            train_bytes += one.size
            heldout.add(one)
        held = heldout.close(temporary, encoder.dtype, shard_tokens)
        card, files = variant_card(temporary, train, train_bytes, *held)
        card |= {"chain": list(chain), "tokenizer": tokenizer.digest, "documents_digest": documents_digest}
        finish_variant(temporary, key, card, files)
    return card


@lru_cache(maxsize=1)
def _encoder(tokenizer: TokenizerCard, folder: Path, modified: int) -> Encoder:
    """One for the depths of a source that a process writes one after another."""
    return Encoder(tokenizer, folder)


@contextmanager
def new_variant(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` at the end, and goes away where something fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def variant_card(
    folder: Path, train: SplitWriter, train_bytes: int, heldout: SplitWriter, heldout_bytes: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Close the splits of a variant whose ``heldout.jsonl`` is there: its part of the card but for the chain, and the
    SHA-256 of each of its files."""
    lines = {"heldout.jsonl": file_digest(folder / "heldout.jsonl")}
    card: dict[str, Any] = {}
    files, whole = dict(lines), dict(lines)
    for prefix, split, size in (("", train, train_bytes), ("heldout_", heldout, heldout_bytes)):
        card |= {f"{prefix}tokens": split.tokens, f"{prefix}documents": split.documents, f"{prefix}bytes": size}
        extents, its_files, its_whole = split.close()
        files, whole = files | its_files, whole | its_whole
        card |= {f"{prefix}extents": [one.model_dump() for one in extents]} if extents else {}
        dtype = split.dtype
    card |= {"digest": content_digest(whole)} | ({} if dtype == "uint16" else {"dtype": dtype})
    return card, files


def finish_variant(folder: Path, key: str, card: dict[str, Any], files: dict[str, str]) -> None:
    write_json(folder / RECORD, {"key": key, "card": card, "files": dict(sorted(files.items()))})


def read_variant(folder: Path, key: str) -> dict[str, Any] | None:
    """The card part of a folder written for `key`, or None."""
    if not (folder / RECORD).is_file():
        return None
    record = read_json(folder / RECORD)
    return dict(record["card"]) if record["key"] == key else None


@dataclass(frozen=True)
class _Encoded:
    """The documents of one row group: those trained on laid end to end, and those held out one by one.

    `lengths` int64[n, 2] are tokens of question and rest; `size` is the bytes of the text trained on.
    """

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    size: int
    heldout: list[_HeldoutDocument]


@dataclass(frozen=True)
class _HeldoutDocument:
    digest: bytes  # of its text
    tokens: npt.NDArray[Any]
    question: int
    size: int
    line: str


def _encoded(parts: Sequence[Path], encoder: Encoder, fraction: float, workers: int) -> Iterator[_Encoded]:
    """What becomes of each row group, in order."""
    tasks = ((path, group) for path in parts for group in range(count_groups(path)))
    if workers == 1:
        for path, group in tasks:
            yield _encode(encoder, path, group, fraction)
        return
    # Not forked: a tokenizer's threads may be running in this process.
    context = multiprocessing.get_context("spawn")
    arguments = encoder.card, encoder.path.parent
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=arguments) as pool:
        running: deque[Future[_Encoded]] = deque()
        try:
            for task in tasks:
                if len(running) >= _AHEAD * workers:
                    yield running.popleft().result()
                running.append(pool.submit(_encode_in_worker, *task, fraction))
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


_ENCODER: Encoder | None = None


def _start_worker(tokenizer: TokenizerCard, folder: Path) -> None:
    global _ENCODER
    begin()
    _ENCODER = Encoder(tokenizer, folder)


def _encode_in_worker(path: Path, group: int, fraction: float) -> _Encoded:
    assert _ENCODER is not None
    return _encode(_ENCODER, path, group, fraction)


def _encode(encoder: Encoder, path: Path, group: int, fraction: float) -> _Encoded:
    rows = [dict(zip(_COLUMNS, row, strict=True)) for row in zip(*read_group(path, group, _COLUMNS), strict=True)]
    end = np.array([encoder.card.end_of_text], dtype=encoder.dtype)
    asked = [row["question"] for row in rows if row["question"]]
    questions = dict(zip(asked, encoder.encode(asked), strict=True)) if asked else {}
    rests = encoder.encode([row["text"].removeprefix(row["question"]) for row in rows])
    pieces: list[npt.NDArray[Any]] = [end[:0]]
    lengths: list[tuple[int, int]] = []
    heldout: list[_HeldoutDocument] = []
    size = 0
    for row, rest in zip(rows, rests, strict=True):
        question = questions.get(row["question"], end[:0])
        size_of_text = size_of(row["text"])
        if Document(row["id"], row["split_key"], "").is_heldout(fraction):
            line = {"id": row["id"], "text": row["text"], **json.loads(row["fields"])}
            heldout.append(
                _HeldoutDocument(
                    hashlib.sha256(row["text"].encode()).digest()[:16],
                    np.concatenate([question, rest, end]),
                    len(question),
                    size_of_text,
                    json.dumps(line, sort_keys=True) + "\n",
                )
            )
        else:
            pieces += [question, rest, end]
            lengths.append((len(question), len(rest) + 1))
            size += size_of_text
    return _Encoded(np.concatenate(pieces), np.array(lengths, dtype=np.int64).reshape(-1, 2), size, heldout)


class _Heldout:
    """Held-out documents, on disk until the last is known: they are for measuring, and the same text twice measures
    nothing more. Of equal texts the first is kept, where the last stood."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed in close
        self._places: list[tuple[int, int, int, int, int]] = []  # byte, tokens in bytes, question, size, line in bytes
        self._first: dict[bytes, int] = {}
        self._last: dict[bytes, int] = {}
        self._count = 0

    def add(self, encoded: _Encoded) -> None:
        for one in encoded.heldout:
            self._count += 1
            self._last[one.digest] = self._count
            if one.digest not in self._first:
                self._first[one.digest] = len(self._places)
                tokens, line = one.tokens.tobytes(), one.line.encode()
                self._places.append((self._file.tell(), len(tokens), one.question, one.size, len(line)))
                self._file.write(tokens)
                self._file.write(line)

    def close(self, folder: Path, dtype: np.dtype[Any], shard_tokens: int) -> tuple[SplitWriter, int]:
        """Write the split and ``heldout.jsonl``; the split still open, and the bytes of its text."""
        split = SplitWriter(folder, "heldout", dtype, shard_tokens)
        size = 0
        with (folder / "heldout.jsonl").open("wb") as lines:
            for digest in sorted(self._last, key=self._last.__getitem__):
                byte, width, question, text, line = self._places[self._first[digest]]
                self._file.seek(byte)
                tokens = np.frombuffer(self._file.read(width), dtype=dtype)
                split.add(tokens, np.array([[question, len(tokens) - question]], dtype=np.int64))
                lines.write(self._file.read(line))
                size += text
        self._file.close()
        sync(folder / "heldout.jsonl")
        return split, size
