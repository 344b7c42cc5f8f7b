"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from davinci.data.documents import Document
from davinci.data.l0_acquisition.files import Patterns
from davinci.data.l0_acquisition.paths import Found, files_of, find
from davinci.data.l0_acquisition.rows import RowReader
from davinci.data.operations import Places, operation
from davinci.data.tally import Tally
from davinci.errors import UserError, nearest


@operation("parquet")
class Parquet(RowReader):
    """A document a row of the files that match `paths`; row groups are read at the same time. Only the columns named
    are read. A document without a field for its id is named by its file and row."""

    paths: Patterns

    def parts(self, places: Places) -> list[dict[str, Any]]:
        return [part for one in find(self.paths, places.root) for part in self._cut(one)]

    def _cut(self, one: Found) -> list[dict[str, Any]]:
        """Neighbouring row groups, up to `part_bytes` of them together."""
        try:
            with pq.ParquetFile(one.path) as file:
                about = file.metadata
                names = file.schema_arrow.names
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{one.path}: no Parquet file, or cut short ({' '.join(str(error).split())})") from None
        for name in self.fields:
            if name not in names:
                raise UserError(f"{one.path}: no column {name}" + nearest(name, names))
        stated = one.stated()
        parts: list[dict[str, Any]] = []
        row = 0
        for group in range(about.num_row_groups):
            size = about.row_group(group).total_byte_size
            if not parts or parts[-1]["bytes"] + size > self.part_bytes:
                parts.append({"files": [stated], "first": group, "row": row, "bytes": 0})
            parts[-1]["end"] = group + 1
            parts[-1]["bytes"] += size
            row += about.row_group(group).num_rows
        return parts or [{"files": [stated], "first": 0, "end": 0, "row": 0, "bytes": 0}]

    def provenance(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return files_of(parts)

    def read(self, part: Mapping[str, Any], places: Places, tally: Tally) -> Iterator[Document]:
        (one,) = part["files"]
        number = part["row"]
        try:
            with pq.ParquetFile(one["path"], page_checksum_verification=True) as file:
                for group in range(part["first"], part["end"]):
                    for batch in file.iter_batches(batch_size=256, row_groups=[group], columns=self.fields):
                        for row in batch.to_pylist():
                            name = one["name"]
                            document = self.document(row, f"{name}:{number}", {"file": name, "row": number}, tally)
                            number += 1
                            if document is not None:
                                yield document
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{one['path']}: damaged ({' '.join(str(error).split())})") from None
