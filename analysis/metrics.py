"""The metrics of one run or node: a row a token count, a column a metric; what every source is read into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# A string beside the numbers, by metric and tokens: only keys of evaluations are.
Texts = dict[tuple[str, int], str]


@dataclass(frozen=True)
class Metrics:
    """Metrics by tokens since initialisation.

    Attributes:
        tokens: int64[n], ascending, each once.
        names: of the m metrics, sorted.
        values: float64[n, m], NaN where a metric has no value.
        texts: what is no number.
    """

    tokens: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    names: tuple[str, ...] = ()
    values: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    texts: Texts = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def column(self, name: str) -> np.ndarray:
        """float64[n] of one metric, all NaN where there is none of that name."""
        try:
            return self.values[:, self.names.index(name)]
        except ValueError:
            return np.full(len(self.tokens), np.nan)

    def within(self, begin: int, end: int) -> Metrics:
        """The rows of a node's own range; at `begin` itself the state is still its parent's, or untrained."""
        low = np.searchsorted(self.tokens, begin, side="left" if begin == 0 else "right")
        high = np.searchsorted(self.tokens, end, side="right")
        if (low, high) == (0, len(self.tokens)):
            return self
        kept = slice(int(low), int(high))
        texts = {key: text for key, text in self.texts.items() if begin < key[1] <= end or key[1] == begin == 0}
        return Metrics(self.tokens[kept], self.names, self.values[kept], texts)

    def where(self, wanted: Iterable[bool]) -> Metrics:
        """The metrics of which `wanted`, an entry a name, is true, and the rows that have any of them."""
        chosen = np.fromiter(wanted, bool, len(self.names))
        values = self.values[:, chosen]
        rows = ~np.isnan(values).all(axis=1) if values.size else np.zeros(len(self.tokens), bool)
        names = tuple(name for name, one in zip(self.names, chosen, strict=True) if one)
        return Metrics(self.tokens[rows], names, values[rows], self.texts)


def from_cells(
    tokens: np.ndarray, names: Sequence[str], columns: np.ndarray, values: np.ndarray, texts: Texts | None = None
) -> Metrics:
    """Metrics from single values, in order of time: of two for one metric and token count the later counts.

    Args:
        tokens: int64[k], of each value.
        names: of the metrics, in any order, each once; those without a value are left out.
        columns: int64[k], which of `names` each value is of.
        values: float64[k], none of them NaN.
        texts: what is no number.
    """
    used = np.bincount(columns, minlength=len(names)) > 0
    order = sorted(np.flatnonzero(used), key=lambda index: names[index])
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(order))
    steps = np.diff(tokens)
    if (steps >= 0).all():  # nearly always: need not be sorted
        rows = np.append(0, np.cumsum(steps > 0))[: len(tokens)]
        kept = tokens[np.append(True, steps > 0)[: len(tokens)]]
    else:
        kept, rows = np.unique(tokens, return_inverse=True)
    table = np.full((len(kept), len(order)), np.nan)
    table[rows, place[columns]] = values  # where an index repeats, the last assignment stands
    return Metrics(kept.astype(np.int64), tuple(names[index] for index in order), table, texts or {})


def from_rows(rows: Mapping[int, Mapping[str, float | str]]) -> Metrics:
    """Metrics from ``{tokens: {name: value}}``."""
    if not rows:
        return Metrics()
    index: dict[str, int] = {}
    tokens, columns, values, texts = [], [], [], {}
    for at, row in rows.items():
        for name, value in row.items():
            if isinstance(value, str):
                texts[name, at] = value
            else:
                tokens.append(at)
                columns.append(index.setdefault(name, len(index)))
                values.append(value)
    return from_cells(
        np.array(tokens, np.int64), list(index), np.array(columns, np.int64), np.array(values, float), texts
    )


def joined(parts: Sequence[Metrics]) -> Metrics:
    """Several as one; where two have a value for one metric and token count the later part's counts."""
    parts = [part for part in parts if len(part) or part.texts]
    if len(parts) == 1:
        return parts[0]
    index = {name: place for place, name in enumerate(sorted({name for part in parts for name in part.names}))}
    tokens = np.concatenate([part.tokens for part in parts]) if parts else np.empty(0, np.int64)
    kept, rows = np.unique(tokens, return_inverse=True)
    table = np.full((len(kept), len(index)), np.nan)
    start = 0
    texts: Texts = {}
    for part in parts:
        at = rows[start : start + len(part)]
        start += len(part)
        texts.update(part.texts)
        cells = np.ix_(at, [index[name] for name in part.names])
        table[cells] = np.where(np.isnan(part.values), table[cells], part.values)
    return Metrics(kept.astype(np.int64), tuple(index), table, texts)
