"""The history of an offline W&B run: wandb_internal.proto's HistoryRecords as arrays.

Decoded by hand, and many at a time: a history of 20,000 steps is half a million small messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.metrics import Metrics, Texts, from_cells

# Field numbers of HistoryItem and ConfigItem.
KEY, NESTED_KEY, VALUE = 1, 2, 16
_VALUE_TAG = b"\x82\x01"  # of field 16, a string
_MINUS, _NINE = b"-9"
_AT_ONCE = 2**10  # history records, which stay in the processor's cache


class _Columns(dict[bytes, int]):
    """The column of a key by its encoding, two encodings of one name being one column; -1 for parts of a dict, such as
    a table, and for W&B's own, such as ``_step``."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __missing__(self, key: bytes) -> int:
        names = _names(key)
        ours = len(names) == 1 and not names[0].startswith("_")
        if ours and names[0] not in self.names:
            self.names.append(names[0])
        self[key] = self.names.index(names[0]) if ours else -1
        return self[key]


class History:
    """Collects history records, and takes many apart at a time: of each value its row, its column and its number."""

    def __init__(self) -> None:
        self._columns = _Columns()
        self._bodies: list[bytes] = []
        self._rows = 0
        self._values: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._texts: list[tuple[int, int, str]] = []

    def add(self, body: bytes) -> None:
        """Take one HistoryRecord in."""
        self._bodies.append(body)
        if len(self._bodies) == _AT_ONCE:
            self._take()

    def _take(self) -> None:
        data = b"".join(self._bodies)
        ends = np.cumsum(np.fromiter(map(len, self._bodies), np.int64, len(self._bodies)))
        row, key, value, text, end = _items_at(data, np.append(0, ends[:-1]), ends)
        walked = np.setdiff1d(np.arange(len(ends)), row).tolist()
        names = zip(key.tolist(), value.tolist(), strict=True)
        column = np.array([self._columns[data[at:to]] for at, to in names], np.int64)
        ours = column >= 0
        row, column, text, end = row[ours], column[ours], text[ours], end[ours]
        plain, numbers = _numbers(data, text, end)
        rest = zip(*(part[~plain].tolist() for part in (row, column, text, end)), strict=True)
        others = [(index, place, data[at:to]) for index, place, at, to in rest]
        # What is encoded otherwise (a nested key, a long text) is walked field by field.
        for index in walked:
            items = _history_items(self._bodies[index])
            others += [(index, place, said) for name, said in items if (place := self._columns[name]) >= 0]
        parts = [(row[plain], column[plain], numbers)]
        for index, place, content in others:
            said = _json(content)
            if isinstance(said, str):
                self._texts.append((self._rows + index, place, said))
            elif isinstance(said, int | float):
                parts.append((np.array([index]), np.array([place]), np.array([float(said)])))
        row, column, numbers = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(row, kind="stable")  # later rows in place of earlier ones
        self._values.append((self._rows + row[order], column[order], numbers[order]))
        self._rows += len(ends)
        self._bodies.clear()

    def metrics(self) -> Metrics:
        """What was collected; rows without ``tokens`` are none of ours."""
        if self._bodies:
            self._take()
        names = self._columns.names
        if "tokens" not in names:
            return Metrics()
        row, column, value = (np.concatenate(parts) for parts in zip(*self._values, strict=True))
        clock = (column == names.index("tokens")) & np.isfinite(value)
        at = np.full(self._rows, -1, np.int64)
        at[row[clock]] = value[clock].astype(np.int64)
        texts: Texts = {
            (names[place], int(at[index])): text
            for index, place, text in self._texts
            if at[index] >= 0 and text not in ("NaN", "Infinity", "-Infinity")
        }
        ours = (column != names.index("tokens")) & (at[row] >= 0) & np.isfinite(value)
        return from_cells(at[row[ours]], names, column[ours], value[ours], texts)


def _numbers(data: bytes, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the n texts ``data[begin:end]`` are decimals, bool[n], and their values, float64[those]; to the last
    bit those of `float`."""
    byte = np.frombuffer(data, np.uint8)
    first = byte[begin + (byte[begin] == _MINUS)]
    plain = (first >= _NINE - 9) & (first <= _NINE)
    begin, length = begin[plain], (end - begin)[plain]
    offsets = np.append(0, np.cumsum(length))
    text = byte[np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], length)]
    buffers = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(text)]
    try:
        found = pa.Array.from_buffers(pa.large_string(), len(begin), buffers).cast(pa.float64())
    except pa.ArrowInvalid:  # what begins like one but is none
        return np.zeros(len(plain), bool), np.empty(0)
    return plain, np.frombuffer(found.buffers()[1], np.float64, len(begin))  # `to_numpy` would import pandas


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _items_at(data: bytes, at: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where the items of HistoryRecords are, the n-th of all of them at once.

    Args:
        data: the records, one behind the other.
        at: int64[rows], where each begins; `ends`, where it ends.

    Returns:
        int64[items] each: row, begin of the key's encoding, its end (where the value's begins), begin and end of the
        value's text. Rows of which anything is encoded in another way than below are left out.
    """
    byte = np.frombuffer(data + bytes(512), np.uint8)  # a length that is none may point behind the end
    at, rows, plain = at.copy(), np.arange(len(at)), np.ones(len(at), bool)
    found: list[tuple[np.ndarray, ...]] = []
    while len(rows):
        here, end = at[rows], ends[rows]
        # The step stands last, or the record ends.
        last = (here == end) | (byte[here] == 18) & (here + 2 + byte[here + 1] == end)
        rows, here, end = rows[~last], here[~last], end[~last]
        # An item: its tag, its length (all are below 128), the key's tag, length and text, the value's likewise.
        value = here + 4 + byte[here + 3]
        stop = here + 2 + byte[here + 1]
        fits = (byte[here] == 10) & ((byte[here + 2] == 10) | (byte[here + 2] == 18)) & (stop <= end)
        fits &= (byte[here + 1] < 128) & (byte[here + 3] < 128) & (byte[value + 2] < 128)
        fits &= (byte[value] == _VALUE_TAG[0]) & (byte[value + 1] == _VALUE_TAG[1])
        fits &= value + 3 + byte[value + 2] == stop
        plain[rows[~fits]] = False
        rows, here, value, stop = rows[fits], here[fits], value[fits], stop[fits]
        found.append((rows, here + 2, value, value + 3, stop))
        at[rows] = stop
    whole = [np.concatenate(parts) for parts in zip(*found, strict=True)] or [np.empty(0, np.int64)] * 5
    kept = plain[whole[0]]
    return tuple(part[kept] for part in whole)


def _history_items(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key as encoded, value as JSON) of a HistoryRecord."""
    for number, content in fields(body):
        if number == 1:
            value = b"null"
            for inner, part in fields(content):
                if inner == VALUE:
                    value = part
            end = content.rfind(_VALUE_TAG, 0, len(content) - len(value))
            yield content[:end], value


def _names(key: bytes) -> list[str]:
    """The name of an item whose key fields are encoded in `key`; several where it is nested."""
    return [content.decode() for number, content in fields(key) if number in (KEY, NESTED_KEY)]


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, content) of a message: int for a varint, bytes for what has a length or is of fixed size."""
    position = 0
    while position < len(data):
        tag, position = varint(data, position)
        match tag & 7:
            case 0:
                value, position = varint(data, position)
                yield tag >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, position = varint(data, position)
            case _:
                length = 4
        yield tag >> 3, data[position : position + length]
        position += length


def varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
