"""Per-item results of a checkpoint (`davinci.evaluation.item_records`) as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.kept import Piece

_SCHEMA = pa.schema([("benchmark", pa.string()), ("item", pa.int64()), ("score", pa.float64())])


def parse(path: Path) -> Piece | None:
    """Benchmark by benchmark the ids, ascending, and the scores; with each benchmark's range and mean."""
    try:
        file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
        table = file.read(columns=_SCHEMA.names, use_threads=False).select(_SCHEMA.names).cast(_SCHEMA)
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    if not len(table) or any(column.null_count for column in table.columns):
        return None
    coded = table["benchmark"].combine_chunks().dictionary_encode()
    found = coded.dictionary.to_pylist()
    names = sorted(found)
    codes = np.array([names.index(name) for name in found])[coded.indices.to_numpy()]
    ids, scores = table["item"].to_numpy(), table["score"].to_numpy()
    rising = (np.diff(codes) > 0) | ((np.diff(codes) == 0) & (np.diff(ids) >= 0))
    if not rising.all():
        order = np.lexsort((ids, codes))
        ids, scores = ids[order], scores[order]
    counts = np.bincount(codes)
    ends = np.cumsum(counts)
    means = np.add.reduceat(scores, ends - counts) / counts
    ranges = zip(names, (ends - counts).tolist(), ends.tolist(), means.tolist(), strict=True)
    return Piece({"benchmarks": list(ranges)}, (ids, scores))
