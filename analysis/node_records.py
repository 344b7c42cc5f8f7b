"""The records of many nodes as arrays, kept beside the store so that only files that changed are read again.

Training rows are most of a file: they are taken apart by Arrow's JSON reader, the others row by row. What was read is
kept in ``STORE/cache/records/<sweep>/*.arrow``, a file for each time that something was new, and believed for as long
as a node's records have the size and time they had. The folder can be deleted; where it cannot be written, nothing is
kept.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from analysis.metrics import Metrics, from_rows, joined
from davinci.store import Store, atomic_file, file_digest
from davinci.tracking import history, records

_TRAIN = b'{"kind": "train"'  # as `records.Writer` writes it
_ABOUT_ROW = ("kind", "tokens")
_PIECES = 8  # files of one sweep's cache before they are made one
_SCHEMA = pa.schema(
    [
        *(("node", pa.string()), ("stamp", pa.string()), ("names", pa.list_(pa.string()))),
        *(("tokens", pa.large_binary()), ("values", pa.large_binary()), ("rows", pa.large_binary())),
    ]
)


@dataclass(frozen=True)
class NodeRecords:
    """What one node recorded.

    Attributes:
        metrics: all but scores, by the names of `davinci.tracking.history`.
        evaluations: evaluation rows as recorded.
        probes: probe rows as recorded.
        strange: how many rows lack what rows of their kind have, or are of no kind that is known.
    """

    metrics: Metrics = field(default_factory=Metrics)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    strange: int = 0

    def __bool__(self) -> bool:
        return bool(len(self.metrics) or self.evaluations or self.probes)


def read_nodes(store: Store, sweep: str, nodes: Collection[str]) -> tuple[dict[str, NodeRecords], list[str]]:
    """The records of `nodes`, and the ids of those whose files had to be read; one without a file is empty."""
    folder = store.root / "cache" / "records" / store.sweep(sweep).name
    stamps = {node: stamp for node in nodes if (stamp := _stamp(store.records(node)))}
    kept = _Kept(folder, stamps)
    fresh = [node for node in stamps if node not in kept.found]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:  # Arrow's reader lets go of the interpreter
        read = dict(zip(fresh, threads.map(lambda node: _parse(store.records(node)), fresh), strict=True))
    if read:
        kept.add(read)
    empty = NodeRecords()
    return {node: read.get(node) or kept.found.get(node) or empty for node in nodes}, fresh


class _Kept:
    """What the cache in `folder` holds of the nodes in `stamps`, as far as their stamps agree."""

    def __init__(self, folder: Path, stamps: dict[str, str]) -> None:
        self._folder, self._stamps = folder, stamps
        self._files: list[Path] = []
        self.found: dict[str, NodeRecords] = {}
        for path in sorted(folder.glob("*.arrow")):
            try:
                with pa.memory_map(str(path)) as source:
                    table = pa.ipc.open_file(source).read_all()
            except (OSError, pa.ArrowException):
                continue
            self._files.append(path)
            if (table.schema.metadata or {}).get(b"program") == _program():
                self._take(table)

    def _take(self, table: pa.Table) -> None:
        stamps = self._stamps
        for row in range(table.num_rows):
            node = table["node"][row].as_py()
            if stamps.get(node) != table["stamp"][row].as_py():
                continue
            names = tuple(table["names"][row].as_py())
            tokens = np.frombuffer(table["tokens"][row].as_buffer(), np.int64)
            values = np.frombuffer(table["values"][row].as_buffer(), np.float64).reshape(len(tokens), len(names))
            rows = json.loads(table["rows"][row].as_py())
            metrics = Metrics(tokens, names, values)
            self.found[node] = NodeRecords(metrics, rows["evaluations"], rows["probes"], rows["strange"])

    def add(self, read: dict[str, NodeRecords]) -> None:
        """Keep `read` too; where that would be one file too many, what counts of all of them in one."""
        crowded = len(self._files) >= _PIECES
        wanted = self.found | read if crowded else read
        columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
        for node, one in wanted.items():
            rows = {"evaluations": one.evaluations, "probes": one.probes, "strange": one.strange}
            columns["node"].append(node)
            columns["stamp"].append(self._stamps[node])
            columns["names"].append(list(one.metrics.names))
            columns["tokens"].append(np.ascontiguousarray(one.metrics.tokens).tobytes())
            columns["values"].append(np.ascontiguousarray(one.metrics.values).tobytes())
            columns["rows"].append(json.dumps(rows).encode())
        table = pa.table(columns, schema=_SCHEMA.with_metadata({b"program": _program()}))
        with suppress(OSError):  # a store that only others may write
            self._folder.mkdir(parents=True, exist_ok=True)
            with (
                atomic_file(self._folder / f"{time.time_ns():020d}-{os.getpid()}.arrow") as path,
                pa.OSFile(str(path), "wb") as file,
                pa.ipc.new_file(file, table.schema) as writer,
            ):
                writer.write_table(table)
            for path in self._files if crowded else ():
                path.unlink(missing_ok=True)


@cache
def _program() -> bytes:
    """A digest of the code that decides what is kept."""
    files = (__file__, history.__file__, records.__file__)
    return "-".join(file_digest(Path(str(file)))[:16] for file in files).encode()


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _parse(path: Path) -> NodeRecords:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return NodeRecords()
    train = [line for line in lines if line.startswith(_TRAIN)]
    others = records.latest(line for line in lines if line and not line.startswith(_TRAIN))
    found: dict[int, dict[str, Any]] = {}
    known: dict[str, list[dict[str, Any]]] = {"evaluation": [], "probe": []}
    strange = 0
    for row in others:
        try:
            values = history.metrics(row)
        except (KeyError, TypeError, AttributeError):
            strange += 1
            continue
        if row["kind"] in known:
            known[row["kind"]].append(row)
        if row["kind"] != "evaluation":
            found.setdefault(row["tokens"], {}).update(values)
    metrics = joined([_train(train), from_rows(found)])
    return NodeRecords(metrics, known["evaluation"], known["probe"], strange)


def _train(lines: list[bytes]) -> Metrics:
    """The metrics of training rows. What Arrow does not read (a torn line, a value of two types) is read row by row."""
    if not lines:
        return Metrics()
    try:
        data = b"\n".join(lines)
        options = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
        table = pj.read_json(io.BytesIO(data), read_options=options)
        about = {name: _numbers(table[name]) for name in ("attempt", "tokens", "step")}
    except (pa.ArrowException, KeyError):
        return from_rows(_rows(lines))
    if table.num_rows != len(lines) or any(column is None or np.isnan(column).any() for column in about.values()):
        return from_rows(_rows(lines))
    # Of rows at one step the last of the highest attempt counts.
    order = np.lexsort((about["attempt"], about["step"], about["tokens"]))
    tokens = about["tokens"][order]
    kept = order[np.append(tokens[1:] != tokens[:-1], True)]
    names, columns = [], []
    for name in table.column_names:
        column = None if name in _ABOUT_ROW else _numbers(table[name])
        if column is not None and not np.isnan(column := column[kept]).all():
            names.append(f"record/{name}" if name in history.RECORD else f"train/{name}")
            columns.append(column)
    place = sorted(range(len(names)), key=names.__getitem__)
    values = np.column_stack([columns[index] for index in place])
    return Metrics(about["tokens"][kept].astype(np.int64), tuple(names[index] for index in place), values)


def _numbers(column: pa.ChunkedArray) -> np.ndarray | None:
    """float64[n] of a column of numbers, NaN for null; None of anything else."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    return column.cast(pa.float64()).to_numpy()


def _rows(lines: Iterable[bytes]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for row in records.latest(lines):
        found.setdefault(row["tokens"], {}).update(history.metrics(row))
    return found
