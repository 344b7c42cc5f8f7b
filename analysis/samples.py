"""From the tidy frame to the arrays that the statistics take: a `Sample` for each (arm, moment, column)."""

from __future__ import annotations

from collections import defaultdict, namedtuple
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis.heldout import Losses
from analysis.load import COLUMNS, Sweep
from analysis.statistics import Sample, contributions
from davinci.planning.build import paper_label
from davinci.planning.heldout_metrics import UNITS, HeldOutMetric
from davinci.planning.identity import human_tokens
from davinci.planning.plan import Plan

DOMAINS = ("general", "code", "science")
OVERALL = "Overall"

Row = Any  # a named tuple of the tidy frame, `analysis.load.COLUMNS`
_row = namedtuple("Row", COLUMNS)._make


@dataclass(frozen=True)
class Moment:
    """A token count at which arms are compared.

    `tokens` since initialisation, `stage_tokens` into `stage`; `label` counts the latter in the paper's tokens and
    `name` is the label with its stage where that is not the last, or the tokens since initialisation where the arms
    are in different stages. `shared`: every arm is the same node there and asked the same, so there is one row for all.
    """

    tokens: int
    stage: str
    stage_tokens: int
    label: str
    shared: bool
    name: str


@dataclass(frozen=True)
class Column:
    """A named set of benchmarks, all weighing the same; or of held-out losses, by `metric` and domain."""

    name: str
    benchmarks: tuple[str, ...] = ()
    losses: tuple[HeldOutMetric, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """What it is the mean of; two columns of the same are one."""
        return self.benchmarks or tuple(one.name for one in self.losses)


class Grid:
    """The frame by cell: rows of an arm at a token count, and the columns and moments of the sweep's tables.

    A sweep that evaluates nothing has held-out losses alone, at the ends of its stages.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._rows: dict[tuple[str, int], list[Row]] = defaultdict(list)
        self._at: dict[int, list[Row]] = defaultdict(list)
        self._cells: dict[tuple[str, int, tuple[str, ...]], list[Row]] = {}
        self.benchmarks: dict[str, Row] = {}
        self.tests: dict[tuple[str, str], Row] = {}  # by benchmark and protocol
        self._asked: set[tuple[str, str, str]] = set()
        self.sampled: dict[tuple[tuple[str, ...], str, int], Sample | None] = {}  # by column, arm and tokens
        self._stacked: dict[Any, np.ndarray | None] = {}
        self.all_rows: list[Row] = _tuples(sweep.scores)
        for row in self.all_rows or _stage_ends(sweep.plan):
            self._rows[row.arm, row.tokens].append(row)
            self._at[row.tokens].append(row)
        for row in self.all_rows:
            self.benchmarks.setdefault(row.benchmark, row)
            self.tests.setdefault((row.benchmark, row.protocol), row)
            self._asked.add((row.arm, row.benchmark, row.protocol))

    @cached_property
    def centred(self) -> dict[tuple[str, str, str], np.ndarray]:
        """By the key of `Sweep.items` what each item adds to its benchmark's mean: views of arrays made at once."""
        alike: dict[tuple[str, int], list[tuple[str, str, str]]] = defaultdict(list)
        for key, items in self.sweep.items.items():
            alike[key[2], len(items.scores)].append(key)
        found: dict[tuple[str, str, str], np.ndarray] = {}
        for keys in alike.values():
            scores = np.stack([self.sweep.items[key].scores for key in keys])
            found.update(zip(keys, contributions(scores, 1), strict=True))
        return found

    def stacked(self, test: tuple[str, str], rows: Sequence[Row], ids: np.ndarray) -> np.ndarray | None:
        """float64[len(rows), len(ids)]: `centred` of what `rows` answered in one test; None unless all are of `ids`."""
        asked = test, *[row.node for row in rows], *[row.key for row in rows]
        if asked not in self._stacked:
            keys = [(row.node, row.key, row.benchmark) for row in rows]
            found = [self.sweep.items.get(key) for key in keys]
            alike = all(items and (items.ids is ids or np.array_equal(items.ids, ids)) for items in found)
            self._stacked[asked] = np.array([self.centred[key] for key in keys]) if alike else None
        return self._stacked[asked]

    def rows(self, arm: str, tokens: int, column: Column) -> list[Row]:
        """The rows of one cell, run by run, those without a score included."""
        key = arm, tokens, column.members
        if key not in self._cells:
            wanted, asked = set(column.benchmarks), self.asked(arm, tokens)
            found = [row for row in asked if row.benchmark in wanted]
            for row in {row.run: row for row in asked}.values() if column.losses else ():
                found += [self.losses.row(row, metric) for metric in column.losses]
            self._cells[key] = found
        return self._cells[key]

    def asked(self, arm: str, tokens: int) -> list[Row]:
        """All rows of an arm at a token count."""
        return self._rows.get((arm, tokens), [])

    @cached_property
    def losses(self) -> Losses:
        """The held-out losses of the states that are evaluated."""
        return Losses(self.sweep)

    def at(self, tokens: int) -> list[Row]:
        """All rows at a token count."""
        return self._at.get(tokens, [])

    def passes(self, arm: str, tokens: int) -> bool:
        """Whether the arm is to be evaluated at `tokens`."""
        return (arm, tokens) in self._rows

    def last(self, arm: str) -> Moment:
        """The arm's last evaluated point."""
        return next(moment for moment in reversed(self.moments) if self.passes(arm, moment.tokens))

    def level(self, arm: str | None, tokens: int) -> int:
        """What arms are compared at: tokens, or where documents are held fixed, the tokens that the baseline arm takes
        for the documents which `arm` has read by then."""
        return self._levels.get((arm, tokens), tokens)

    @cached_property
    def _levels(self) -> dict[tuple[str | None, int], int]:
        plan = self.sweep.plan
        if "documents" not in plan.audit.held_fixed:
            return {}
        points = {run.arm: run.points for run in plan.runs}
        base = points[plan.baseline]
        return {
            (arm, own.tokens): reference.tokens
            for arm, some in points.items()
            if len(some) == len(base)  # all arms ask for the same points, each after the same share of its stage
            for own, reference in zip(some, base, strict=True)
        }

    def asks(self, arm: str, benchmark: str, protocol: str) -> bool:
        """Whether the arm's suite has the benchmark under that protocol."""
        return (arm, benchmark, protocol) in self._asked

    def chance(self, arm: str, column: Column) -> float | None:
        """What guessing scores in the column on the arm's suite, as a fraction; None where it has nothing of it."""
        asked = [
            row.chance
            for (name, _), row in self.tests.items()
            if self.asks(arm, name, row.protocol) and name in column.benchmarks
        ]
        return float(np.mean(asked)) if asked else None

    def runs_through(self, nodes: set[str], tokens: int) -> tuple[str, ...]:
        """Ids of all runs that are at one of `nodes` at `tokens`, whatever their arm."""
        return tuple(dict.fromkeys(row.run for row in self._at[tokens] if row.node in nodes))

    @cached_property
    def suites(self) -> set[str]:
        """Keys of the suites that the arms are evaluated on."""
        return {arm.config.evaluation.key for arm in self.sweep.plan.arms}

    @cached_property
    def _questions(self) -> dict[int, set[str]]:
        """What is asked at each token count: a suite, of the weights there or of an average."""
        keys = {arm.label: arm.config.evaluation.key for arm in self.sweep.plan.arms}
        found: dict[int, set[str]] = defaultdict(set)
        for run in self.sweep.plan.runs:
            for point in run.points:
                found[point.tokens].add(point.asks(keys[run.arm]))
        return found

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
            one_question = len(self._questions[tokens]) <= 1
            shared = arms > 1 and one_question and all(len(some) == arms for some in arms_of_node.values())
            first = rows[0]
            name = first.label if first.stage == last_stage else f"{first.stage} {first.label}"
            if len({(row.stage, row.stage_tokens) for row in rows}) > 1:
                name = f"{human_tokens(tokens)} in all"
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
        return [*columns, Column(OVERALL, tuple(self.benchmarks))] if self.benchmarks else []

    @cached_property
    def table_columns(self) -> list[Column]:
        """The columns that the sweep asks for, in its order; without any the domains and Overall, and where nothing is
        evaluated the held-out losses."""
        known: dict[str, Column] = {}
        for column in self.known_columns:
            known.setdefault(column.name.lower(), column)
        wanted = dict.fromkeys(metric.lower() for metric in self.sweep.plan.question.metrics)
        means = [column for column in self.loss_columns if "/" not in column.name]
        return [known[name] for name in wanted if name in known] or self.domain_columns or means

    @cached_property
    def unknown_metrics(self) -> list[str]:
        """Columns the sweep asks for that are no benchmark of its suite, no domain of it, Overall nor a held-out
        loss."""
        known = {column.name.lower() for column in self.known_columns}
        return [metric for metric in self.sweep.plan.question.metrics if metric.lower() not in known]

    @property
    def known_columns(self) -> list[Column]:
        """Every column that a table may have."""
        return [*self.domain_columns, *self.benchmark_columns, *self.loss_columns]

    @cached_property
    def loss_columns(self) -> list[Column]:
        """Held-out loss and bits a byte: the mean over the domains, then each domain's."""
        found = []
        for value in UNITS:
            single = tuple(HeldOutMetric(value, domain) for domain in self.losses.domains)
            found.append(Column(HeldOutMetric(value).name, losses=single))
            found += [Column(metric.name, losses=(metric,)) for metric in single]
        return found

    @cached_property
    def benchmark_columns(self) -> list[Column]:
        """A column a benchmark, in the suite's order."""
        return [Column(name, (name,)) for name in self.benchmarks]


def _tuples(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame as named tuples: those of `itertuples`, which reads text a row at a time."""
    columns = [frame[name].to_numpy(object).tolist() for name in COLUMNS]
    return list(map(_row, zip(*columns, strict=True)))


def _stage_ends(plan: Plan) -> list[Row]:
    """A row without a benchmark for every run at the end of each of its stages."""
    rows = []
    for run in plan.runs:
        trillion = plan.config(run).scale.tokens_per_trillion
        last = {plan.nodes[name].stage_name: plan.nodes[name] for name in run.nodes}
        for node in last.values():
            within = node.end - node.stage_begin
            where = run.id, run.arm, run.seed, node.id, node.stage_name, node.end, within
            rows.append(_row((*where, paper_label(within / trillion * 1e12), *("",) * 4, np.nan, 0, np.nan, "", "")))
    return rows


def stem(benchmark: str, protocol: str) -> str:
    """Name of the items behind a benchmark: ``arithmetic_ppl`` and ``arithmetic_generative`` ask the same ones."""
    return benchmark.removesuffix(f"_{protocol}")


class Sampler:
    """Makes the samples of one column. An item has the same place in the arrays of all its samples."""

    def __init__(self, grid: Grid, column: Column) -> None:
        self._grid = grid
        self._column = column
        self._reference: dict[tuple[str, str], np.ndarray] = {}
        for row in grid.all_rows:
            if row.benchmark in column.benchmarks and (row.benchmark, row.protocol) not in self._reference:
                items = grid.sweep.items.get((row.node, row.key, row.benchmark))
                if items is not None:
                    self._reference[row.benchmark, row.protocol] = items.ids
        groups: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for name, protocol in self._reference:
            groups[grid.benchmarks[name].domain, stem(name, protocol)].append((name, protocol))
        self._places: dict[tuple[str, str], np.ndarray | slice] = {}
        self._width = 0
        for members in groups.values():
            ids = np.unique(np.concatenate([self._reference[test] for test in members]))
            for test in members:
                own = self._reference[test]
                whole = len(own) == len(ids)  # a slice, which is read faster than places one by one
                end = self._width + len(ids)
                self._places[test] = slice(self._width, end) if whole else self._width + np.searchsorted(ids, own)
            self._width += len(ids)

    def sample(self, arm: str, tokens: int) -> Sample | None:
        """The cell of `arm` at `tokens`: the seeds that have every benchmark of the column; None without one.

        Seeds that share their node (a trunk shared by all seeds) are one observation and count once.
        """
        known, key = self._grid.sampled, (self._column.members, arm, tokens)
        if key not in known:
            known[key] = self._sample(arm, tokens)
        return known[key]

    def _sample(self, arm: str, tokens: int) -> Sample | None:
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
        values = np.array([[row.score for row in rows] for rows in kept.values()])
        return Sample(tuple(kept), values.sum(axis=1) / values.shape[1], self._items(list(kept.values())))

    def _items(self, kept: list[list[Row]]) -> np.ndarray | None:
        """float64[S, G], or None where any seed lacks item scores or answered other items."""
        parts = np.zeros((len(kept), self._width))
        for rows in zip(*kept, strict=True):  # of one benchmark, a seed each
            test = rows[0].benchmark, rows[0].protocol
            if test not in self._reference:
                return None
            scores = self._grid.stacked(test, rows, self._reference[test])
            if scores is None:
                return None
            parts[:, self._places[test]] += scores / len(kept[0])
        return parts
