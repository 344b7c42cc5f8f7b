"""Documents between steps: Parquet files of a part each, read and written a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from davinci.data.documents import Document
from davinci.errors import UserError
from davinci.store import atomic_file

_BATCH_BYTES = 16 << 20
_MUCH = 1 << 28  # bytes: what Arrow kept of a batch of such a size is given back
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


class PartWriter:
    """Writes a part a batch at a time, in one step: the file is there once `write_part` has ended well."""

    def __init__(self, file: pq.ParquetWriter) -> None:
        self._file = file
        self._rows: list[dict[str, str]] = []
        self._size = 0

    def add(self, one: Document) -> None:
        """Write a document."""
        self._rows.append(_row(one))
        self._size += len(one.text)
        if self._size >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held back."""
        columns = {name: [row[name] for row in self._rows] for name in SCHEMA.names}
        table = pa.Table.from_pydict(columns, SCHEMA)
        size, self._rows, self._size = self._size, [], 0
        del columns
        self._file.write_table(table)
        del table
        _give_back(size)


@contextmanager
def write_part(path: Path) -> Iterator[PartWriter]:
    """A writer of a part; after an error no file is left."""
    with atomic_file(path) as temporary, _writer(temporary) as file:
        writer = PartWriter(file)
        yield writer
        writer.flush()


def _writer(path: Path) -> pq.ParquetWriter:
    """Texts are not put into a dictionary first, nor are the first and the last by alphabet noted: they seldom repeat,
    and one may be very long."""
    return pq.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        use_dictionary=["split_key", "origin"],
        write_statistics=False,
        write_page_checksum=True,
        data_page_version="2.0",
    )


def _give_back(size: int) -> None:
    if size >= _MUCH:
        pa.default_memory_pool().release_unused()


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """Write a part in one step. Memory holds one batch."""
    with write_part(path) as writer:
        for one in documents:
            writer.add(one)


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a part, in order. Memory holds one batch as it was written.

    Raises:
        UserError: it is damaged.
    """
    for group in range(count_groups(path)):
        for identity, key, text, question, fields, origin in zip(*read_group(path, group), strict=True):
            yield Document(identity, key, text, question, json.loads(fields), json.loads(origin))


def count_groups(path: Path) -> int:
    """How many batches a part was written in."""
    with _opened(path) as file:
        return int(file.num_row_groups)


def read_group(path: Path, group: int, columns: Sequence[str] = SCHEMA.names) -> list[list[str]]:
    """What a batch of a part holds in each of `columns`, which stand in the order of `SCHEMA`."""
    with _opened(path) as file:
        values: list[list[str]] = [one.to_pylist() for one in file.read_row_group(group, columns=columns).columns]
        size = file.metadata.row_group(group).total_byte_size
    _give_back(size)
    return values


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A damaged part is removed: the next build makes it again."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        path.unlink(missing_ok=True)
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: damaged ({reason}); removed, the same command makes it again") from None


def _row(one: Document) -> dict[str, str]:
    return {
        "id": one.id,
        "split_key": one.split_key,
        "text": one.text,
        "question": one.question,
        "fields": json.dumps(dict(one.fields), sort_keys=True),
        "origin": json.dumps(dict(one.origin), sort_keys=True),
    }
