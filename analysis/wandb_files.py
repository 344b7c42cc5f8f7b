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

from analysis.metrics import Metrics, joined
from analysis.wandb_history import KEY, NESTED_KEY, VALUE, History, fields, varint
from davinci.errors import UserError

_BLOCK = 32768
_CHUNK = struct.Struct("<IHB")
_SALT = [zlib.crc32(bytes([kind])) for kind in range(5)]
_HEADER = b":W&B\xe1\xbe\x00"

# Field numbers of wandb_internal.proto: of Record, and of what is inside.
HISTORY, SUMMARY, CONFIG, RUN = 2, 3, 5, 17
_RUN_TEXTS = {1: "id", 2: "entity", 3: "project", 6: "group", 7: "job_type", 8: "name"}
_RUN_CONFIG, _RUN_TAG, _RUN_START = 4, 10, 17


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
    history = History()
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
        if end and record[0] == 8:
            position = 1
            while record[position] > 127:
                position += 1
            position += 1
        if position < end and record[position] in skipped:
            continue
        while position < end:
            tag, position = varint(record, position)
            length, position = varint(record, position)
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


def _items(body: bytes) -> dict[str, Any]:
    """The updates of a ConfigRecord: JSON by (nested) key."""
    found = {}
    for number, content in fields(body):
        if number == 1:
            inner = list(fields(content))
            name = "/".join(part.decode() for place, part in inner if place in (KEY, NESTED_KEY))
            (value,) = [part for place, part in inner if place == VALUE] or [b"null"]
            found[name] = json.loads(value)
    return found


def _run(body: bytes, found: Offline) -> None:
    """Fill in what a RunRecord says."""
    for number, content in fields(body):
        if number in _RUN_TEXTS:
            setattr(found, _RUN_TEXTS[number], content.decode())
        elif number == _RUN_TAG:
            found.tags.append(content.decode())
        elif number == _RUN_CONFIG:
            found.config.update(_items(content))
        elif number == _RUN_START:  # google.protobuf.Timestamp
            stamp = dict(fields(content))
            found.started = stamp.get(1, 0) + stamp.get(2, 0) / 1e9
