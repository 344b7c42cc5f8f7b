"""The records of many nodes as arrays; what was read is kept (`analysis.kept`)."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from analysis.kept import Piece, read_files
from analysis.metrics import Metrics, from_rows, joined
from analysis.readers import Others
from davinci.store import Store
from davinci.tracking import history, records

_PLACE = ("attempt", "step", "tokens")
_ABOUT = ("kind", "tokens")  # of a training row: what is no metric


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


def read_nodes(
    store: Store, sweep: str, nodes: Collection[str], others: Others
) -> tuple[dict[str, NodeRecords], list[str]]:
    """The records of `nodes`, and the ids of those whose files had to be read; one without a file is empty."""
    folder = store.root / "cache" / "records" / store.sweep(sweep).name
    files = {node: store.records(node) for node in nodes}
    pieces, fresh = read_files(folder, files, parse, others, [str(module.__file__) for module in (history, records)])
    empty = NodeRecords()
    return {node: _records(pieces[node]) if node in pieces else empty for node in nodes}, fresh


def _records(piece: Piece) -> NodeRecords:
    about, (tokens, values) = piece.about, piece.arrays
    metrics = Metrics(tokens, tuple(about["names"]), values)
    return NodeRecords(metrics, about["evaluations"], about["probes"], about["strange"])


def parse(path: Path) -> Piece | None:
    """A file of records as arrays: metrics, and what is said of other kinds of rows."""
    train: list[_Train] = []
    others: list[dict[str, Any]] = []
    try:
        for rows in records.blocks(path):
            train.append(_train([row for row in rows if row["kind"] == "train"]))
            others += [row for row in rows if row["kind"] != "train"]
    except OSError:
        return None
    found: dict[int, dict[str, Any]] = {}
    known: dict[str, list[dict[str, Any]]] = {"evaluation": [], "probe": []}
    strange = 0
    for row in records.latest(others):
        try:
            values = history.metrics(row)
        except (KeyError, TypeError, AttributeError):
            strange += 1
            continue
        if row["kind"] in known:
            known[row["kind"]].append(row)
        if row["kind"] != "evaluation":
            found.setdefault(row["tokens"], {}).update(values)
    metrics = joined([_counting(train), from_rows(found)])
    about = {"names": metrics.names, "evaluations": known["evaluation"], "probes": known["probe"], "strange": strange}
    return Piece(about, (metrics.tokens, metrics.values))


@dataclass(frozen=True)
class _Train:
    """n training rows: `names` of all their values, float64[n, m], and their `_PLACE`, int64[n, 3]."""

    names: Sequence[str]
    values: np.ndarray
    place: np.ndarray


def _train(rows: Sequence[dict[str, Any]]) -> _Train:
    names = [name for name in (rows[0] if rows else ()) if name not in _ABOUT]
    alike = len(set(map(len, rows))) == 1 and len(names) > 1
    try:
        flat = array("d", list(chain.from_iterable(map(itemgetter(*names), rows)))) if alike else None
    except (KeyError, TypeError, OverflowError):  # a value that a row lacks, or that is no number
        flat = None
    if flat is None:
        names = list(dict.fromkeys(name for row in rows for name in row if name not in _ABOUT))
        flat = array("d", [_number(row.get(name)) for row in rows for name in names])
    place = array("q", list(chain.from_iterable(map(itemgetter(*_PLACE), rows))))
    values = np.array(flat).reshape(len(rows), len(names))
    return _Train(names, values, np.array(place, np.int64).reshape(len(rows), len(_PLACE)))


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:
        return np.nan


def _counting(parts: Sequence[_Train]) -> Metrics:
    """Of training rows at one token count the last one of the highest attempt."""
    parts = [part for part in parts if len(part.values)]
    if not parts:
        return Metrics()
    if len(parts) == 1:
        (whole,) = parts
    else:
        names = list(dict.fromkeys(name for part in parts for name in part.names))
        values = np.full((sum(len(part.values) for part in parts), len(names)), np.nan)
        start = 0
        for part in parts:
            end = start + len(part.values)
            values[start:end, [names.index(name) for name in part.names]] = part.values
            start = end
        whole = _Train(names, values, np.concatenate([part.place for part in parts]))
    tokens = whole.place[:, -1]
    kept: Any = slice(None)
    if not (np.diff(tokens) > 0).all():
        order = np.lexsort(whole.place.T)
        kept = order[np.append(np.diff(tokens[order]) > 0, True)]
    there = ~np.isnan(whole.values).all(axis=0)
    named = {f"{'record' if name in history.RECORD else 'train'}/{name}": i for i, name in enumerate(whole.names)}
    columns = {name: column for name, column in sorted(named.items()) if there[column]}
    return Metrics(tokens[kept], tuple(columns), whole.values.take(list(columns.values()), axis=1)[kept])
