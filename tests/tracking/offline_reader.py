"""Reads an offline ``.wandb`` file back: LevelDB log framing around wandb's protobufs, after a 7-byte header."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768


@dataclass
class Offline:
    """What one file says of its run."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    exit_code: int | None = None


def read_offline(folder: Path) -> Offline:
    (file,) = folder.glob("run-*.wandb")
    found = Offline()
    for record in _records(file.read_bytes()):
        kind = record.WhichOneof("record_type")
        found.kinds.add(kind)
        match kind:
            case "run":
                found.run = record.run
                found.config.update(_items(record.run.config.update))
            case "config":
                found.config.update(_items(record.config.update))
            case "summary":
                found.summary.update(_items(record.summary.update))
            case "history":
                found.history.append(_items(record.history.item))
            case "metric":
                found.metrics.append(record.metric)
            case "exit":
                found.exit_code = record.exit.exit_code
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # Whole, or the last part.
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record
