"""Reads offline W&B runs (``run-*.wandb``): W&B's protobuf records, in the framing of `analysis.wandb_framing`.

Of the records only those that say what the run is, its config and its history are decoded, by hand: a history of 20,000
steps is half a million small messages, and wandb need not be imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analysis.metrics import Metrics, joined
from analysis.wandb_framing import records
from analysis.wandb_history import KEY, NESTED_KEY, VALUE, History, fields, varint

# Field numbers of wandb_internal.proto: of Record, and of what is inside.
HISTORY, CONFIG, RUN = 2, 5, 17
_NUM_TAG = 8
_BOOKKEEPING = 16, 19, 200  # control, uuid, _info
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


@dataclass
class Contents:
    """Contents of records: of the n-th, the number of the field of ``Record`` that it has, and that field's content,
    ``data[begin[n]:end[n]]``. `damaged` chunks were among them."""

    data: bytearray
    number: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    damaged: int


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
    for some in contents(path):
        found.damaged += some.damaged
        rows = some.number == HISTORY
        history.add(some.data, some.begin[rows], some.end[rows])
        for index in np.flatnonzero((some.number == RUN) | (some.number == CONFIG)).tolist():
            body = bytes(some.data[some.begin[index] : some.end[index]])
            if some.number[index] == RUN:
                _run(body, found)
            else:
                found.config.update(_items(body))
    found.history = history.metrics()
    return found


def contents(path: Path) -> Iterator[Contents]:
    """What the whole records of a file hold, many at a time.

    Raises:
        UserError: it is no W&B file, or cannot be read.
    """
    for some in records(path):
        data, at = some.data, some.begin.copy()
        byte = np.frombuffer(data, np.uint8)
        # `num` comes first and the content last, but for bookkeeping between them.
        goes_on = np.flatnonzero((at < some.end) & (byte[at] == _NUM_TAG))
        while len(goes_on):
            at[goes_on] += 1
            goes_on = goes_on[byte[at[goes_on]] > 127]
        numbered = at > some.begin
        at[numbered] += 1
        number, begin = byte[at].astype(np.int64), at + 1
        # Nearly always: a field below 16, of a length of at most two bytes.
        length = byte[begin].astype(np.int64)
        longer = length > 127
        length += np.where(longer, (byte[begin + 1].astype(np.int64) << 7) - 128, 0)
        begin += 1 + longer
        end = begin + length
        plain = (number < 128) & (number & 7 == 2) & (end <= some.end) & ~(longer & (byte[begin - 1] > 127))
        number >>= 3
        for index in np.flatnonzero(~plain).tolist():
            number[index], begin[index], end[index] = _content(data, int(at[index]), int(some.end[index]))
        yield Contents(data, number, begin, end, some.damaged)


def _content(data: bytearray, position: int, end: int) -> tuple[int, int, int]:
    """The field of a Record that is its content, where it begins and where it ends; (0, 0, 0) where there is none."""
    while position < end:
        tag, position = varint(data, position)
        if tag & 7 not in (0, 2):
            break  # no such field in a Record
        length, position = varint(data, position)
        if tag & 7 == 2:
            if tag >> 3 not in _BOOKKEEPING:
                return tag >> 3, position, min(position + length, end)
            position += length
    return 0, 0, 0


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
