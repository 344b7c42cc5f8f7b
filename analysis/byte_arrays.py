"""Reading a file's bytes at many places at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def numbers_at(data: bytes | bytearray, offset: int, kind: str) -> np.ndarray:
    """An array whose n-th entry is the number of dtype `kind` that begins `offset` bytes behind the n-th byte."""
    size = len(data) - offset - np.dtype(kind).itemsize + 1
    return np.ndarray(max(size, 0), kind, data, offset if size > 0 else 0, strides=(1,))


def by_row(rows: Sequence[np.ndarray], *columns: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """What was found as the first of every row, then the second of every row that has one, and so on: row after row.

    Args:
        rows: of each round the rows that something was found of, ascending.
        columns: in the same shape, what was found.

    Returns:
        `rows` and each of `columns`, as one array.
    """
    count = np.bincount(np.concatenate(rows)) if rows else np.empty(0, np.int64)
    starts = np.cumsum(count) - count
    place = np.concatenate([starts[one] + index for index, one in enumerate(rows)]) if rows else starts
    whole = tuple(np.empty(len(place), np.int64) for _ in range(len(columns) + 1))
    for found, parts in zip(whole, (rows, *columns), strict=True):
        if parts:
            found[place] = np.concatenate(parts)
    return whole
