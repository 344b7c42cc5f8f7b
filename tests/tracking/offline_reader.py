"""What one offline ``.wandb`` file holds, decoded by wandb's own protobufs: more than an analysis needs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.wandb_files import contents


@dataclass
class Offline:
    """What one file says of its run."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    exit_code: int | None = None


def read_offline(folder: Path) -> Offline:
    from wandb.proto import wandb_internal_pb2 as protobufs

    (file,) = folder.glob("run-*.wandb")
    found = Offline()
    bodies = (
        (number, bytes(some.data[begin:end]))
        for some in contents(file)
        for number, begin, end in zip(some.number.tolist(), some.begin.tolist(), some.end.tolist(), strict=True)
    )
    for number, body in bodies:
        described = protobufs.Record.DESCRIPTOR.fields_by_number[number]
        record = getattr(protobufs.Record(), described.name)
        record.ParseFromString(body)
        found.kinds.add(described.name)
        match described.name:
            case "run":
                found.run = record
                found.config.update(_items(record.config.update))
            case "config":
                found.config.update(_items(record.update))
            case "summary":
                found.summary.update(_items(record.update))
            case "history":
                found.history.append(_items(record.item))
            case "metric":
                found.metrics.append(record)
            case "artifact":
                found.artifacts.append(record)
            case "exit":
                found.exit_code = record.exit_code
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
