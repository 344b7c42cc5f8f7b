"""From the tidy frame to the arrays that the statistics take: a `Sample` for each (arm, moment, column)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.load import Items, Sweep
from analysis.statistics import Sample, contributions

DOMAINS = ("general", "code", "science")
OVERALL = "Overall"

Row = Any  # a named tuple of the tidy frame, `analysis.load.COLUMNS`


@dataclass(frozen=True)
class Moment:
    """A token count at which arms are compared.

    `tokens` since initialisation, `stage_tokens` into `stage`; `label` counts the latter in the paper's tokens and
    `name` is the label with its stage where that is not the last. `shared`: every arm is the same node there, so there
    is one row for all.
    """

    tokens: int
    stage: str
    stage_tokens: int
    label: str
    shared: bool
    name: str


@dataclass(frozen=True)
class Column:
    """A named set of benchmarks, all weighing the same."""

    name: str
    benchmarks: tuple[str, ...]


class Grid:
    """The frame by cell: rows of an arm at a token count, and the columns and moments of the sweep's tables."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._rows: dict[tuple[str, int], list[Row]] = defaultdict(list)
        self._at: dict[int, list[Row]] = defaultdict(list)
        self.benchmarks: dict[str, Row] = {}
        self.all_rows: list[Row] = list(sweep.scores.itertuples(index=False))
        for row in self.all_rows:
            self._rows[row.arm, row.tokens].append(row)
            self._at[row.tokens].append(row)
            self.benchmarks.setdefault(row.benchmark, row)

    def rows(self, arm: str, tokens: int, column: Column) -> list[Row]:
        """The rows of one cell, run by run, those without a score included."""
        return [row for row in self._rows[arm, tokens] if row.benchmark in column.benchmarks]

    def runs_through(self, nodes: set[str], tokens: int) -> tuple[str, ...]:
        """Ids of all runs that are at one of `nodes` at `tokens`, whatever their arm."""
        return tuple(dict.fromkeys(row.run for row in self._at[tokens] if row.node in nodes))

    @cached_property
    def moments(self) -> list[Moment]:
        """The demanded token counts, ascending."""
        arms = len(self.sweep.plan.arms)
        last_stage = self._at[max(self._at)][0].stage
        found = []
        for tokens, rows in sorted(self._at.items()):
            arms_of_node: dict[str, set[str]] = defaultdict(set)
            for row in rows:
                arms_of_node[row.node].add(row.arm)
            shared = arms > 1 and all(len(some) == arms for some in arms_of_node.values())
            first = rows[0]
            name = first.label if first.stage == last_stage else f"{first.stage} {first.label}"
            found.append(Moment(tokens, first.stage, first.stage_tokens, first.label, shared, name))
        return found

    @cached_property
    def domain_columns(self) -> list[Column]:
        """General, Code, Science (those the suite has), then Overall: the mean over benchmarks, not over domains."""
        columns = []
        for domain in DOMAINS:
            members = tuple(name for name, row in self.benchmarks.items() if row.domain == domain)
            if members:
                columns.append(Column(domain.capitalize(), members))
        return [*columns, Column(OVERALL, tuple(self.benchmarks))]

    @cached_property
    def benchmark_columns(self) -> list[Column]:
        """A column a benchmark, in the suite's order."""
        return [Column(name, (name,)) for name in self.benchmarks]


def stem(benchmark: str, protocol: str) -> str:
    """Name of the items behind a benchmark: ``arithmetic_ppl`` and ``arithmetic_generative`` ask the same ones."""
    return benchmark.removesuffix(f"_{protocol}")


class Sampler:
    """Makes the samples of one column. An item has the same place in the arrays of all its samples."""

    def __init__(self, grid: Grid, column: Column) -> None:
        self._grid = grid
        self._column = column
        self._reference: dict[str, np.ndarray] = {}
        for (_, _, benchmark), items in grid.sweep.items.items():
            if benchmark in column.benchmarks:
                self._reference.setdefault(benchmark, items.ids)
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in self._reference:
            row = grid.benchmarks[name]
            groups[row.domain, stem(name, row.protocol)].append(name)
        self._places: dict[str, np.ndarray] = {}
        self._width = 0
        for members in groups.values():
            ids = np.unique(np.concatenate([self._reference[name] for name in members]))
            for name in members:
                self._places[name] = self._width + np.searchsorted(ids, self._reference[name])
            self._width += len(ids)

    def sample(self, arm: str, tokens: int) -> Sample | None:
        """The cell of `arm` at `tokens`: the seeds that have every benchmark of the column; None without one.

        Seeds that share their node (a trunk shared by all seeds) are one observation and count once.
        """
        by_seed: dict[int, list[Row]] = defaultdict(list)
        for row in self._grid.rows(arm, tokens, self._column):
            by_seed[row.seed].append(row)
        kept: dict[int, list[Row]] = {}
        nodes: set[str] = set()
        for seed, rows in sorted(by_seed.items()):
            if rows[0].node not in nodes and not any(row.missing for row in rows):
                nodes.add(rows[0].node)
                kept[seed] = rows
        if not kept:
            return None
        values = np.array([np.mean([row.score for row in rows]) for rows in kept.values()])
        return Sample(tuple(kept), values, self._items(list(kept.values())))

    def _items(self, kept: list[list[Row]]) -> np.ndarray | None:
        """float64[S, G], or None where any seed lacks item scores or answered other items."""
        parts = np.zeros((len(kept), self._width))
        for index, name in enumerate(row.benchmark for row in kept[0]):
            reference = self._reference.get(name)
            scores = []
            for rows in kept:
                items: Items | None = self._grid.sweep.items.get((rows[index].node, rows[index].key, name))
                if items is None or reference is None or not np.array_equal(items.ids, reference):
                    return None
                scores.append(items.scores)
            parts[:, self._places[name]] += contributions(np.stack(scores), len(self._column.benchmarks))
        return parts
