"""Tokens: writing shards against the `tokenizers` library alone, reading sequences against two peers.

Processor time, one thread. Writing counts everything from document files to synced shards with checksums; the library
only encodes (`encode_batch_fast`, its faster way). Every turn has an encoder of its own, which remembers nothing.
Reading is in training order, from memory-mapped files that are in the page cache; the permutation that gives the order
is counted as ours. The peers read by its precomputed values.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _table import Row
from tokenizers import Tokenizer

from davinci.config import parse
from davinci.data import writing
from davinci.data.cards import VariantCard
from davinci.data.document_files import write_documents
from davinci.data.documents import Document
from davinci.data.shard_files import SplitWriter
from davinci.data.shards import Shard
from davinci.data.tokenizer_choice import card_of
from davinci.data.tokenizer_training import train

PACKAGES = ("torch==2.13.0", "numpy", "mosaicml-streaming==0.13.0", "megatron-core==0.16.1")
LENGTHS = (128, 2048, 4096)
VOCABULARY = 8192
BATCH = 32
WINDOW = 4096  # draws whose order is computed at once, as in `davinci.data.batches`
PEERS = {"streaming": "mosaicml-streaming", "megatron": "Megatron-style index"}


def token_rows(documents: Sequence[Document], folder: Path, python: Path, quick: bool) -> list[Row]:
    """The rows of the table: `python` has `PACKAGES`."""
    return [writing_row(documents, folder), *reading_rows(folder, python, quick)]


def writing_row(documents: Sequence[Document], folder: Path) -> Row:
    """Text to shards, against the library's encoding of it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pool = folder / "pool"
    train({"all": documents}, VOCABULARY, pool / "tokenizer.json")
    card = card_of(pool / "tokenizer.json", None, "benchmark")
    write_documents(pool / "part.parquet", documents)
    texts = list(dict.fromkeys(one.text for one in documents))
    size = sum(len(text.encode()) for text in texts)
    library = Tokenizer.from_file(str(pool / "tokenizer.json"))
    ours, peer = float("inf"), float("inf")
    for turn in range(3):
        writing._encoder.cache_clear()  # it remembers what it encoded last
        started = time.process_time()
        writing.write_variant(pool / f"s{turn}@L1", [pool / "part.parquet"], 0.03, card, "k", [])
        ours = min(ours, time.process_time() - started)
        started = time.process_time()
        library.encode_batch_fast(texts, add_special_tokens=False)
        peer = min(peer, time.process_time() - started)
    speeds = size / 1e6 / ours, size / 1e6 / peer
    return Row("text to shards, MB/s", f"{speeds[0]:.2f}", f"{speeds[1]:.2f} tokenizers", speeds[0] / speeds[1], 0.9)


def reading_rows(folder: Path, python: Path, quick: bool) -> list[Row]:
    """Sequences a second at several lengths, of each peer."""
    count = 8_000_000 if quick else 64_000_000
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, count).astype(np.uint16)
    np.save(folder / "tokens.npy", tokens)
    variant = folder / "web@L1"
    variant.mkdir()
    writer = SplitWriter(variant, "train", np.uint16, count // 5 + 1)  # five files
    writer.add(tokens, np.array([[0, count]]))
    extents, _, _ = writer.close()
    about = {"digest": "0" * 64, "tokens": count, "documents": 1, "bytes": 0, "chain": [], "heldout_tokens": 0}
    about |= {"heldout_documents": 0, "heldout_bytes": 0, "extents": [one.model_dump() for one in extents]}
    shard = Shard(variant, "train", parse(VariantCard, about))
    rows = []
    for length in LENGTHS:
        reads = min(shard.sequences(length), (256 if quick else 2048) * BATCH)
        order = shard.chunks(np.arange(reads), 0, length)
        np.save(folder / f"order.{length}.npy", order)
        best, total = float("inf"), 0
        for _ in range(3):
            started, total = time.process_time(), 0
            for begin in range(0, reads, WINDOW):
                chunks = shard.chunks(np.arange(begin, min(begin + WINDOW, reads)), 0, length)
                for first in range(0, len(chunks), BATCH):
                    found, _ = shard.read(chunks[first : first + BATCH], length)
                    total += int(found[:, -1].sum())
            best = min(best, time.process_time() - started)
        for contender, name in PEERS.items():
            seconds, theirs = _contender(python, contender, folder, length, reads)
            if theirs != total:
                raise RuntimeError(f"{contender} read other sequences of {length}: {theirs}, not {total}")
            ours, peer = reads / best, reads / seconds
            rows.append(
                Row(f"reading, T = {length}, sequences/s", f"{ours:,.0f}", f"{peer:,.0f} {name}", ours / peer, 1)
            )
    return rows


def _contender(python: Path, name: str, folder: Path, length: int, reads: int) -> tuple[float, int]:
    script = Path(__file__).with_name("_token_readers.py")
    command = [str(python), str(script), name, str(folder), str(length), str(reads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
    seconds, total = done.stdout.split()[-2:]
    return float(seconds), int(total)
