"""The records of many nodes as arrays. Training rows are most of a file: they are taken apart by Arrow's JSON reader,
the others row by row; what was read is kept (`analysis.kept`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from analysis.kept import Piece, read_files
from analysis.metrics import Metrics, from_rows, joined
from davinci.store import Store
from davinci.tracking import history, records

_TRAIN = b'{"kind": "train"'  # as `records.Writer` writes it
_PLACE = ("attempt", "step", "tokens")


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
    files = {node: store.records(node) for node in nodes}
    pieces, fresh = read_files(
        folder, files, _parse, [str(module.__file__) for module in (history, records)] + [__file__]
    )
    empty = NodeRecords()
    return {node: _records(pieces[node]) if node in pieces else empty for node in nodes}, fresh


def _records(piece: Piece) -> NodeRecords:
    about, (tokens, values) = piece.about, piece.arrays
    metrics = Metrics(tokens, tuple(about["names"]), values)
    return NodeRecords(metrics, about["evaluations"], about["probes"], about["strange"])


def _parse(path: Path) -> Piece | None:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return None
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
    about = {"names": metrics.names, "evaluations": known["evaluation"], "probes": known["probe"], "strange": strange}
    return Piece(about, (metrics.tokens, metrics.values))


def _train(lines: list[bytes]) -> Metrics:
    """The metrics of training rows. What Arrow does not read (a torn line, a value of two types) is read row by row."""
    if not lines:
        return Metrics()
    try:
        data = b"\n".join(lines)
        options = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
        names, values = _numbers(pj.read_json(pa.BufferReader(data), read_options=options))
        about = values[:, [names.index(name) for name in _PLACE]]
    except (pa.ArrowException, ValueError):
        return from_rows(_rows(lines))
    if len(values) != len(lines) or np.isnan(about).any():
        return from_rows(_rows(lines))
    # Of rows at one step the last of the highest attempt counts.
    order = np.lexsort(about.T)
    tokens = about[order, -1]
    kept = order[np.append(tokens[1:] != tokens[:-1], True)]
    values = values[kept]
    place = {
        f"{'record' if name in history.RECORD else 'train'}/{name}": column
        for column, (name, empty) in enumerate(zip(names, np.isnan(values).all(axis=0), strict=True))
        if name != "tokens" and not empty
    }
    columns = [place[name] for name in sorted(place)]
    return Metrics(about[kept, -1].astype(np.int64), tuple(sorted(place)), values[:, columns])


def _numbers(table: pa.Table) -> tuple[list[str], np.ndarray]:
    """The names of the columns of numbers, and float64[n, those], NaN for null."""
    for index, one in enumerate(table.schema):
        if pa.types.is_boolean(one.type):
            table = table.set_column(index, one.name, table[index].cast(pa.int8()))
    kinds = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in table.schema.types]
    (batch,) = table.select(np.flatnonzero(kinds).tolist()).combine_chunks().to_batches()
    return batch.schema.names, batch.to_tensor(null_to_nan=True).to_numpy().astype(np.float64, copy=False)


def _rows(lines: Iterable[bytes]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for row in records.latest(lines):
        found.setdefault(row["tokens"], {}).update(history.metrics(row))
    return found
