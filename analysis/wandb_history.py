"""The history of an offline W&B run: wandb_internal.proto's HistoryRecords as arrays.

Decoded by hand, and many at a time: a history of 20,000 steps is half a million small messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.byte_arrays import by_row, numbers_at
from analysis.metrics import Metrics, Texts, from_cells

# Field numbers of HistoryItem and ConfigItem.
KEY, NESTED_KEY, VALUE = 1, 2, 16
_VALUE_TAG = b"\x82\x01"  # of field 16, a string
_VALUE_HEAD = int.from_bytes(_VALUE_TAG, "little")
_MINUS, _NINE = b"-9"
_AT_ONCE = 2**10  # history records, which stay in the processor's cache
# Lengths below 128 are one byte; then a key's encoding has at most this many words of 8 bytes.
_WORDS = 17
_MASKS = np.array([2 ** (8 * size) - 1 for size in range(9)], np.uint64)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth, The Art of Computer Programming 3, 6.4


class _Columns(dict[bytes, int]):
    """The column of a key by its encoding, two encodings of one name being one column; -1 for parts of a dict, such as
    a table, and for W&B's own, such as ``_step``."""

    def __init__(self) -> None:
        self.names: list[str] = []
        # Of the encodings met by `at`: the index by a hash of 16 bits (-1: not met), their words, their columns.
        self._met = np.full(2**16, -1, np.int64)
        self._words = np.empty((_WORDS, 0), np.uint64)
        self._column = np.empty(0, np.int64)

    def __missing__(self, key: bytes) -> int:
        names = _names(key)
        ours = len(names) == 1 and not names[0].startswith("_")
        if ours and names[0] not in self.names:
            self.names.append(names[0])
        self[key] = self.names.index(names[0]) if ours else -1
        return self[key]

    def at(self, data: bytearray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """int64[n], the columns of the keys that `_items_at` found to be encoded in ``data[begin:end]``."""
        if not len(begin):
            return np.empty(0, np.int64)
        words, hashed = _words(data, begin, end)
        new = np.flatnonzero(self._met[hashed] < 0)
        if len(new):
            new = new[np.unique(hashed[new], return_index=True)[1]]
            self._met[hashed[new]] = len(self._column) + np.arange(len(new))
            more = np.zeros((_WORDS, len(new)), np.uint64)
            more[: len(words)] = words[:, new]
            self._words = np.append(self._words, more, axis=1)
            column = [self[bytes(data[begin[index] : end[index]])] for index in new.tolist()]
            self._column = np.append(self._column, column)
        met = self._met[hashed]
        found: np.ndarray = self._column[met]
        # An encoding says how long it is: none begins with another.
        alike = np.ones(len(met), bool)
        for ours, theirs in zip(self._words, words, strict=False):
            alike &= ours[met] == theirs
        for index in np.flatnonzero(~alike).tolist():  # two of one hash
            found[index] = self[bytes(data[begin[index] : end[index]])]
        return found


def _words(data: bytearray, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The n texts ``data[begin:end]`` as uint64[words, n], ended by zeros, and a hash of each, int64[n] below 2^16."""
    length = end - begin
    at = numbers_at(data, 0, "<u8")
    words = np.empty((-(-int(length.max()) // 8), len(begin)), np.uint64)
    mixed = np.zeros(len(begin), np.uint64)
    for index, word in enumerate(words):
        np.bitwise_and(at[begin + 8 * index], _MASKS[np.clip(length - 8 * index, 0, 8)], out=word)
        mixed = (mixed ^ word) * _MIX
        mixed ^= mixed >> np.uint64(32)
    return words, (mixed * _MIX >> np.uint64(48)).astype(np.int64)


class History:
    """Collects history records, and takes many apart at a time: of each value its row, its column and its number."""

    def __init__(self) -> None:
        self._columns = _Columns()
        self._rows = 0
        self._values: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._texts: list[tuple[int, int, str]] = []

    def add(self, data: bytearray, begin: np.ndarray, end: np.ndarray) -> None:
        """Take HistoryRecords in, the n-th of them in ``data[begin[n]:end[n]]``; `SPARE` bytes follow the last."""
        for first in range(0, len(begin), _AT_ONCE):
            self._take(data, begin[first : first + _AT_ONCE], end[first : first + _AT_ONCE])

    def _take(self, data: bytearray, begin: np.ndarray, end: np.ndarray) -> None:
        row, key, value, text, stop = _items_at(data, begin, end)
        walked = np.flatnonzero(np.bincount(row, minlength=len(begin)) == 0)
        column = self._columns.at(data, key, value)
        ours = column >= 0
        row, column, text, stop = row[ours], column[ours], text[ours], stop[ours]
        plain, numbers = _numbers(data, text, stop)
        rest = zip(*(part[~plain].tolist() for part in (row, column, text, stop)), strict=True)
        others = [(index, place, bytes(data[at:to])) for index, place, at, to in rest]
        # What is encoded otherwise (a nested key, a long text) is walked field by field.
        for index in walked.tolist():
            items = _history_items(bytes(data[begin[index] : end[index]]))
            others += [(index, place, said) for name, said in items if (place := self._columns[name]) >= 0]
        more = []
        for index, place, content in others:
            said = _json(content)
            if isinstance(said, str):
                self._texts.append((self._rows + index, place, said))
            elif isinstance(said, int | float):
                more.append((index, place, float(said)))
        row, column = row[plain], column[plain]
        if more:
            rows, places, values = zip(*more, strict=True)
            row, column, numbers = np.append(row, rows), np.append(column, places), np.append(numbers, values)
            order = np.argsort(row, kind="stable")  # later rows in place of earlier ones
            row, column, numbers = row[order], column[order], numbers[order]
        self._values.append((self._rows + row, column, numbers))
        self._rows += len(begin)

    def metrics(self) -> Metrics:
        """What was collected; rows without ``tokens`` are none of ours."""
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


def _numbers(data: bytearray, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the n texts ``data[begin:end]``, which follow one another, are decimals, bool[n], and their values,
    float64[those]; to the last bit those of `float`."""
    byte = np.frombuffer(data, np.uint8)
    first = byte[begin + (byte[begin] == _MINUS)]
    plain = (first >= _NINE - 9) & (first <= _NINE)
    offsets = np.stack([begin[plain], end[plain]], axis=1).ravel()
    if not len(offsets):
        return plain, np.empty(0)
    # What stands between two of the texts is a text too, but null.
    size = len(offsets) - 1
    buffers = [pa.py_buffer(bytes([0b01010101]) * -(-size // 8)), pa.py_buffer(offsets), pa.py_buffer(data)]
    try:
        found = pc.cast(pa.Array.from_buffers(pa.large_string(), size, buffers), pa.float64())
    except pa.ArrowInvalid:  # what begins like one but is none
        return np.zeros(len(plain), bool), np.empty(0)
    return plain, np.frombuffer(found.buffers()[1], np.float64, size)[::2].copy()  # `to_numpy` would import pandas


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _items_at(data: bytearray, begin: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where the items of HistoryRecords are, the n-th of all of them at once.

    Args:
        data: holds the records, one behind the other.
        begin: int64[rows], where each begins; `ends`, where it ends.

    Returns:
        int64[items] each: row, begin of the key's encoding, its end (where the value's begins), begin and end of the
        value's text. Rows of which anything is encoded in another way than below are left out.
    """
    at = numbers_at(data, 0, "<u4")
    here, end, rows, plain = begin, ends, np.arange(len(begin)), np.ones(len(begin), bool)
    found: list[tuple[np.ndarray, ...]] = []
    while len(rows):
        head = at[here].astype(np.int64)
        # The step stands last, or the record ends.
        last = (here == end) | (head & 255 == 18) & (here + 2 + (head >> 8 & 255) == end)
        if last.any():
            rows, here, end, head = rows[~last], here[~last], end[~last], head[~last]
        # An item: its tag, its length (all are below 128), the key's tag, length and text, the value's likewise.
        value = here + 4 + (head >> 24)
        stop = here + 2 + (head >> 8 & 255)
        kind = head & 0x80FF80FF
        fits = ((kind == 0x000A000A) | (kind == 0x0012000A)) & (stop <= end)
        head = at[value].astype(np.int64)
        fits &= (head & 0x0080FFFF == _VALUE_HEAD) & (value + 3 + (head >> 16 & 255) == stop)
        if not fits.all():
            plain[rows[~fits]] = False
            rows, here, value, stop, end = rows[fits], here[fits], value[fits], stop[fits], end[fits]
        found.append((rows, here + 2, value, stop))
        here = stop
    row, key, value, stop = by_row(*([part[index] for part in found] for index in range(4)))
    kept = plain[row]
    return row[kept], key[kept], value[kept], value[kept] + 3, stop[kept]


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


def varint(data: bytes | bytearray, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
