"""Documents between steps: Parquet files of a part each, read and written a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from davinci.data.documents import Document
from davinci.store import atomic_file

_BATCH_BYTES = 16 << 20
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split_key", pa.string()),
        ("text", pa.large_string()),
        ("question", pa.string()),
        ("fields", pa.string()),  # JSON
        ("origin", pa.string()),  # JSON
    ]
)


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write a part in one step; returns how many documents it holds. Memory holds one batch."""
    count = 0
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, str]] = []
        size = 0
        for one in documents:
            rows.append(_row(one))
            size += len(one.text)
            count += 1
            if size >= _BATCH_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows, size = [], 0
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return count


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a part, in order."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                yield Document(
                    row["id"],
                    row["split_key"],
                    row["text"],
                    row["question"],
                    json.loads(row["fields"]),
                    json.loads(row["origin"]),
                )


def _row(one: Document) -> dict[str, str]:
    return {
        "id": one.id,
        "split_key": one.split_key,
        "text": one.text,
        "question": one.question,
        "fields": json.dumps(dict(one.fields), sort_keys=True),
        "origin": json.dumps(dict(one.origin), sort_keys=True),
    }
