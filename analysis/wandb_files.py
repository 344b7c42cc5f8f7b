"""Reads offline W&B runs (``run-*.wandb``): LevelDB's log framing around W&B's protobuf records.

The framing: after a 7-byte header, blocks of 32 KiB hold chunks of crc32 (of type and data), length, type (1 whole,
2 first, 3 middle, 4 last part of a record) and data (github.com/google/leveldb, doc/log_format.md). Of the records only
those that say what the run is, its config and its history are decoded, by hand: a history of 20,000 steps is half a
million small messages, and wandb need not be imported. What a killed or full disk left of the last record is ignored; a
chunk that fails its checksum costs the records of its block.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.metrics import Metrics, Texts, from_cells, joined
from davinci.errors import UserError

_BLOCK = 32768
_CHUNK = struct.Struct("<IHB")
_SALT = [zlib.crc32(bytes([kind])) for kind in range(5)]
_HEADER = b":W&B\xe1\xbe\x00"

# Field numbers of wandb_internal.proto: of Record, and of what is inside.
HISTORY, SUMMARY, CONFIG, RUN = 2, 3, 5, 17
_RUN_TEXTS = {1: "id", 2: "entity", 3: "project", 6: "group", 7: "job_type", 8: "name"}
_RUN_CONFIG, _RUN_TAG, _RUN_START = 4, 10, 17
_KEY, _NESTED_KEY, _VALUE = 1, 2, 16
_VALUE_TAG = b"\x82\x01"  # of field 16, a string


@dataclass
class Offline:
    """What one file holds of its run; `history` is by the metric ``tokens``.

    `started` is in seconds since 1970, `damaged` counts chunks that failed their checksum.
    """

    id: str = ""
    entity: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    started: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)
    history: Metrics = field(default_factory=Metrics)
    damaged: int = 0


def offline_files(folder: Path) -> dict[str, list[Path]]:
    """The ``.wandb`` files below a folder of W&B's by run id, earliest first."""
    found: dict[str, list[Path]] = {}
    # The folder's name starts with the time it was made; a run that was resumed has several.
    for path in sorted(folder.glob("offline-run-*/run-*.wandb"), key=lambda path: path.parent.name):
        found.setdefault(path.stem.removeprefix("run-"), []).append(path)
    return found


def read_run(files: Sequence[Path]) -> Offline:
    """One run from all its files: merged in the order they were started, later values in place of earlier ones."""
    parts = sorted((read_offline(path) for path in files), key=lambda part: part.started)
    whole = parts[-1]
    whole.history = joined([part.history for part in parts])
    whole.damaged = sum(part.damaged for part in parts)
    return whole


def read_offline(path: Path) -> Offline:
    """Read one file.

    Raises:
        UserError: it is no W&B file, or cannot be read.
    """
    found = Offline()
    history = _History()
    for kind, body in payloads(path, found, (SUMMARY,)):
        if kind == HISTORY:
            history.add(body)
        elif kind == RUN:
            _run(body, found)
        elif kind == CONFIG:
            found.config.update(_items(body))
    found.history = history.metrics()
    return found


def payloads(path: Path, found: Offline | None = None, without: Sequence[int] = ()) -> Iterator[tuple[int, bytes]]:
    """The whole records of a file: the number of the field of ``Record`` that each has, and that field's content.

    Damaged chunks are counted in `found`. Fields below 16 that are named in `without` are passed over.
    """
    skipped = frozenset(number << 3 | 2 for number in without)
    for record in _framed(path, found):
        # `num` comes first and the content last, but for bookkeeping (control 16, uuid 19, _info 200) between them.
        position, end = 0, len(record)
        if record[:1] == b"\x08":
            position = 1
            while record[position] > 127:
                position += 1
            position += 1
        if position < end and record[position] in skipped:
            continue
        while position < end:
            tag, position = _varint(record, position)
            length, position = _varint(record, position)
            if tag & 7 == 2:
                if tag >> 3 not in (16, 19, 200):
                    yield tag >> 3, record[position : position + length]
                    break
                position += length
            elif tag & 7:
                break  # no such field in a Record


def _framed(path: Path, found: Offline | None) -> Iterator[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if data and not data.startswith(_HEADER[: len(data)]):
        raise UserError(f"{path}: not a W&B file of the format that is known (header {data[:7]!r})")
    position, size = len(_HEADER), len(data)
    parts: bytes | None = None  # of a record so far; a first part may be empty, where a header just fits in a block
    crc32, unpack = zlib.crc32, _CHUNK.unpack_from
    while position + 7 <= size:
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        crc, length, kind = unpack(data, position)
        body = data[position + 7 : position + 7 + length]
        whole = length + 7 <= left and 1 <= kind <= 4
        if whole and len(body) < length:
            return  # torn: the writer was killed here
        if not whole or crc32(body, _SALT[kind]) != crc:
            if not any(data[position : position + left]):
                return  # never written
            if found is not None:
                found.damaged += 1
            parts = None
            position += left
            continue
        position += 7 + length
        if kind == 1:
            yield body
        elif kind == 2:
            parts = body
        elif parts is not None:  # without a first part: that was in a damaged block
            parts += body
            if kind == 4:
                yield parts
                parts = None


class _History:
    """Collects history records as flat arrays: of each value its row, its column and its text."""

    def __init__(self) -> None:
        self._columns: dict[bytes, int] = {}  # by the key as encoded, tag and length included
        self._names: list[str] = []
        self._column: list[int] = []
        self._text: list[bytes] = []
        self._counts: list[int] = []

    def add(self, body: bytes) -> None:
        """Take one HistoryRecord in. Rows hold a value after each `_VALUE_TAG`; where lengths do not bear that out
        (a text that holds those bytes, a long text), the record is walked field by field."""
        before = len(self._text)
        if not self._quick(body):
            del self._column[before:], self._text[before:]
            for key, value in _history_items(body):
                if (column := self._place(key)) >= 0:
                    self._column.append(column)
                    self._text.append(value)
        self._counts.append(len(self._text) - before)

    def _quick(self, body: bytes) -> bool:
        parts = body.split(_VALUE_TAG)
        columns, add_column, add_text = self._columns, self._column.append, self._text.append
        head = parts[0]
        try:
            for part in parts[1:]:
                length = part[0] + 1
                # An item: its tag, its length (both below 128), the key; then the value's tag, length and content.
                if head[0] != 10 or head[1] != len(head) + length or length > 127:
                    return False
                key = head[2:]
                column = columns[key] if key in columns else self._place(key)
                if column >= 0:
                    add_column(column)
                    add_text(part[1:length])
                head = part[length:]
        except IndexError:
            return False
        return not head or head[0] == 18  # the step

    def _place(self, key: bytes) -> int:
        """The column of a key, two encodings of one name being one column; -1 for parts of a dict, such as a table,
        and for W&B's own, such as ``_step``."""
        if key not in self._columns:
            names = _names(key)
            ours = len(names) == 1 and not names[0].startswith("_")
            if ours and names[0] not in self._names:
                self._names.append(names[0])
            self._columns[key] = self._names.index(names[0]) if ours else -1
        return self._columns[key]

    def metrics(self) -> Metrics:
        """What was collected; rows without ``tokens`` are none of ours."""
        if "tokens" not in self._names:
            return Metrics()
        column = np.array(self._column, np.int64)
        row = np.repeat(np.arange(len(self._counts)), self._counts)
        try:  # Arrow's numbers are those of `float`, to the last bit
            value = pa.array(self._text, pa.binary()).cast(pa.string()).cast(pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            value = np.array([_number(text) for text in self._text])
        clock = self._names.index("tokens")
        at = np.full(len(self._counts), -1, np.int64)
        at[row[column == clock]] = value[column == clock].astype(np.int64)
        ours = (column != clock) & (at[row] >= 0)
        texts: Texts = {}
        for index in np.flatnonzero(ours & np.isnan(value)):
            text = json.loads(self._text[index])
            if isinstance(text, str) and text not in ("NaN", "Infinity", "-Infinity"):
                texts[self._names[column[index]], int(at[row[index]])] = text
        ours &= np.isfinite(value)
        return from_cells(at[row[ours]], self._names, column[ours], value[ours], texts)


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return {b"true": 1.0, b"false": 0.0}.get(text, np.nan)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, content) of a message: int for a varint, bytes for what has a length or is of fixed size."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                value, position = _varint(data, position)
                yield tag >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, position = _varint(data, position)
            case _:
                length = 4
        yield tag >> 3, data[position : position + length]
        position += length


def _history_items(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key as encoded, value as JSON) of a HistoryRecord."""
    for number, content in _fields(body):
        if number == 1:
            value = b"null"
            for inner, part in _fields(content):
                if inner == _VALUE:
                    value = part
            end = content.rfind(_VALUE_TAG, 0, len(content) - len(value))
            yield content[:end], value


def _names(key: bytes) -> list[str]:
    """The name of an item whose key fields are encoded in `key`; several where it is nested."""
    return [content.decode() for number, content in _fields(key) if number in (_KEY, _NESTED_KEY)]


def _items(body: bytes) -> dict[str, Any]:
    """The updates of a ConfigRecord: JSON by (nested) key."""
    found = {}
    for number, content in _fields(body):
        if number == 1:
            inner = list(_fields(content))
            name = "/".join(part.decode() for place, part in inner if place in (_KEY, _NESTED_KEY))
            (value,) = [part for place, part in inner if place == _VALUE] or [b"null"]
            found[name] = json.loads(value)
    return found


def _run(body: bytes, found: Offline) -> None:
    """Fill in what a RunRecord says."""
    for number, content in _fields(body):
        if number in _RUN_TEXTS:
            setattr(found, _RUN_TEXTS[number], content.decode())
        elif number == _RUN_TAG:
            found.tags.append(content.decode())
        elif number == _RUN_CONFIG:
            found.config.update(_items(content))
        elif number == _RUN_START:  # google.protobuf.Timestamp
            stamp = dict(_fields(content))
            found.started = stamp.get(1, 0) + stamp.get(2, 0) / 1e9
