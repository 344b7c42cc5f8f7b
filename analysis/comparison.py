"""Arms against the baseline: every cell, every difference, and what is noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis import cells as sampling
from analysis import published
from analysis.bootstrap import intervals
from analysis.cells import Key, Place, View
from analysis.noise import Borrowed, borrow
from analysis.samples import Column, Grid, Moment, Row
from analysis.statistics import Estimate, Noise, Sample, holm, together
from davinci.accounting.power import LEVEL


@dataclass(frozen=True)
class Cell:
    """One arm at one moment in one column. Scores are fractions; `published` is in percent.

    Attributes:
        arm: label, or None for the one row that all arms share.
        score: None where no seed has every benchmark of the column.
        difference: arm minus baseline, paired; None for the baseline, a shared moment, or no seed in common.
        p_adjusted: of the difference, Holm over the table's differences (all rows and columns shown).
        published: the paper's figure for this cell; `published_difference` to its baseline.
        by_seed: score of each seed behind it.
        runs: run ids behind the score; `absent`: planned run ids that the score lacks.
        p_equivalent: of "the difference is as large as the margin or larger", Holm likewise; NaN without a margin.
        p_best: where the arm scores highest of those shown at the moment, the largest p of its differences to them.
        best: whether it is told apart from every one of them, Holm over the table.
    """

    arm: str | None
    moment: Moment
    column: str
    score: Estimate | None
    difference: Estimate | None
    p_adjusted: float
    published: float | None
    published_difference: float | None
    by_seed: dict[int, float]
    runs: tuple[str, ...]
    absent: tuple[str, ...]
    items: int
    p_equivalent: float = math.nan
    p_best: float = math.nan
    best: bool = False

    @property
    def equivalent(self) -> bool:
        """Whether the difference is shown to be smaller than the declared margin."""
        return self.p_equivalent < 1 - LEVEL

    @property
    def told_apart(self) -> bool | None:
        """Whether the difference can be told from noise; None where there is no difference to judge."""
        if self.difference is None:
            return None
        return bool(self.p_adjusted < 1 - LEVEL)


@dataclass(frozen=True)
class Comparison:
    """One table's worth of cells, and what its design could have detected.

    `rows` are those the table shows, in its order; `cells` holds every evaluated point, for figures and verdict.
    `detectable` is by column, as a fraction: the median over the table's differences of the smallest true difference
    told from noise with 80% power. `chance`: by column and arm what guessing scores, None where the arm's suite has
    nothing of the column. `averaged`: where the view averages points, those of each arm; its cells at its last point
    then hold the mean. `borrowed`: seed noise of other sweeps, where this one has one seed.
    `family`: how many differences Holm counts.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str | None, Moment], ...]
    cells: dict[tuple[str | None, int, str], Cell]
    detectable: dict[str, float]
    chance: dict[str, dict[str, float | None]]
    baseline: str
    efficiency: tuple[float, float]
    view: View
    averaged: dict[str, tuple[Moment, ...]]
    borrowed: Borrowed | None = None
    family: int = 0

    @property
    def shown(self) -> list[Cell]:
        """The cells of the table, row by row."""
        return [cell for arm, moment in self.rows for cell in self.row(arm, moment)]

    def row(self, arm: str | None, moment: Moment) -> list[Cell]:
        return [self.cells[arm, moment.tokens, column.name] for column in self.columns]


def compare(
    grid: Grid, columns: Sequence[Column], paper: published.Published | None = None, view: View | None = None
) -> Comparison:
    """Compute the table of `columns`. Cells and differences are pooled by column; see `analysis.statistics`.

    All evaluated points are pooled; Holm's family and the detectable difference are those of the rows shown.
    """
    view = view or View.of(grid.sweep.plan)
    places = sampling.places(grid)
    sampled = {column.name: sampling.samples(grid, column, places) for column in columns}
    borrowed = borrow(grid, columns) if _single(sampled) else None
    found = _cells(grid, columns, places, sampled, None, view, borrowed, paper)
    efficiency = found[1]
    tails = _tails(grid, view)
    if tails:
        means = {name: sampling.tails(cells, tails) for name, cells in sampled.items()}
        differences = {
            name: sampling.tails(sampling.paired(cells, view.baseline, grid), tails) for name, cells in sampled.items()
        }
        last = [place for place in places if place[0] in tails and place[1] == tails[place[0]][-1]]
        averages, efficiency = _cells(grid, columns, last, means, differences, view, borrowed, paper)
        found[0].update(averages)
    arms = [arm.label for arm in grid.sweep.plan.arms]
    comparison = Comparison(
        columns=tuple(columns),
        rows=tuple(sampling.shown(grid, places, view)),
        cells=found[0],
        detectable={},
        chance={column.name: {arm: grid.chance(arm, column) for arm in arms} for column in columns},
        baseline=view.baseline,
        efficiency=efficiency,
        view=view,
        averaged=tails,
        borrowed=borrowed,
    )
    detectable = {column.name: _detectable(comparison, column.name) for column in columns}
    return adjusted([replace(comparison, detectable=detectable)])[0]


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one table, corrected as one family: Holm over all differences shown, whatever their column."""
    own = [{(cell.arm, cell.moment.tokens, cell.column): cell for cell in one.shown} for one in comparisons]
    keys = [(index, key) for index, cells in enumerate(own) for key in cells]
    family = [own[index][key] for index, key in keys]

    differ = np.array([cell.difference is not None for cell in family], bool)
    differences = together([cell.difference for cell in family if cell.difference is not None])
    margins = np.array([comparisons[index].view.equivalence or math.nan for index, _ in keys])
    apart = holm(_where(differ, differences.p))
    same = holm(_where(differ, differences.p_equivalent(margins[differ] / 100)))
    best = holm([cell.p_best for cell in family])
    changed: list[dict[tuple[str | None, int, str], Cell]] = [dict(one.cells) for one in comparisons]
    for place, (index, key) in enumerate(keys):
        changed[index][key] = replace(
            family[place], p_adjusted=apart[place], p_equivalent=same[place], best=best[place] < 1 - LEVEL
        )
    size = sum(cell.difference is not None for cell in family)
    return [replace(one, cells=cells, family=size) for one, cells in zip(comparisons, changed, strict=True)]


def _where(there: np.ndarray, values: np.ndarray) -> list[float]:
    """`values` at the places that are `there`, NaN elsewhere."""
    found = np.full(len(there), math.nan)
    found[there] = values
    return list(found.tolist())


def _single(sampled: Mapping[str, Mapping[Key, Sample]]) -> bool:
    """Whether no cell has a second seed."""
    return not any(len(cell.seeds) > 1 for cells in sampled.values() for cell in cells.values())


def _tails(grid: Grid, view: View) -> dict[str, tuple[Moment, ...]]:
    """The points over which each arm is averaged: its last ones since arms part, as far as there are."""
    if view.average_last == 1:
        return {}
    own = {
        arm: [moment for moment in grid.moments if not moment.shared and grid.passes(arm, moment.tokens)]
        for arm in (arm.label for arm in grid.sweep.plan.arms)
    }
    return {arm: tuple(moments[-view.average_last :]) for arm, moments in own.items() if moments}


def _cells(
    grid: Grid,
    columns: Sequence[Column],
    places: Sequence[Place],
    sampled: Mapping[str, Mapping[Key, Sample]],
    paired: Mapping[str, Mapping[Key, Sample]] | None,
    view: View,
    borrowed: Borrowed | None,
    paper: published.Published | None,
) -> tuple[dict[tuple[str | None, int, str], Cell], tuple[float, float]]:
    """The cells at `places`, and what fraction of the pooled degrees of freedom of scores and differences is real."""
    baseline = view.baseline
    paired = paired or {name: sampling.paired(cells, baseline, grid) for name, cells in sampled.items()}
    plain = sampling.plain(columns)
    real = sampling.efficiency([sampled[name] for name in plain]), sampling.efficiency([paired[name] for name in plain])
    cells: dict[tuple[str | None, int, str], Cell] = {}
    for column in columns:
        name = column.name
        scores = intervals(sampled[name], real[0], borrowed and borrowed.scores.get(name))
        noise = borrowed and borrowed.differences.get(name)
        differences = intervals(paired[name], real[1], noise)
        best = _best(grid, sampled[name], view.arms, real[1], noise)
        for arm, moment in places:
            key = arm, moment.tokens
            there, absent = _present(grid.rows(arm or baseline, moment.tokens, column))
            figures = _published(paper, arm, baseline, column, moment, last=moment is grid.moments[-1])
            cells[arm, moment.tokens, name] = Cell(
                arm=arm,
                moment=moment,
                column=name,
                score=scores.get(key),
                difference=differences.get(key),
                p_adjusted=math.nan,
                published=figures[0],
                published_difference=figures[1],
                by_seed=_by_seed(sampled[name].get(key)),
                runs=_run_ids(grid, there, moment),
                absent=_run_ids(grid, absent, moment),
                items=sum({row.benchmark: row.items for row in there}.values()),
                p_best=best.get(key, math.nan),
            )
    return cells, real


def _best(
    grid: Grid, cells: Mapping[Key, Sample], arms: Sequence[str], efficiency: float, noise: Noise | None
) -> dict[Key, float]:
    """At each moment the arm with the highest score, and the largest p of its paired differences to the others.

    The others are all arms that the table shows there; without one, without a seed in common, or where nothing is known
    of the noise, there is no best.
    """
    shown = {key: float(cell.values.mean()) for key, cell in cells.items() if key[0] in arms}
    highest: dict[int, Key] = {}
    for key, mean in shown.items():
        level = grid.level(*key)
        if level not in highest or mean > shown[highest[level]]:
            highest[level] = key
    gaps: dict[Key, Sample] = {}
    unknown = set()
    for key in shown:
        best = highest[grid.level(*key)]
        if key != best:
            gap = cells[best].minus(cells[key])
            if gap is None:
                unknown.add(best)
            else:
                gaps[key] = gap
    found: dict[Key, float] = {}
    estimates = intervals(gaps, efficiency, noise)
    for key, p in zip(estimates, together(list(estimates.values())).p.tolist(), strict=True):
        best = highest[grid.level(*key)]
        found[best] = max(found.get(best, 0.0), p)
        if math.isnan(p):
            unknown.add(best)
    return {key: p for key, p in found.items() if key not in unknown}


def _detectable(comparison: Comparison, column: str) -> float:
    """The median over the column's differences that are shown; NaN without one."""
    cells = (comparison.cells[arm, moment.tokens, column] for arm, moment in comparison.rows)
    found = [cell.difference for cell in cells if cell.difference is not None and cell.difference.covers]
    return float(np.median(together(found).detectable)) if found else math.nan


def _by_seed(sample: Sample | None) -> dict[int, float]:
    return {} if sample is None else dict(zip(sample.seeds, sample.values.tolist(), strict=True))


def _present(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Split a cell's rows into those of runs that have every benchmark and those of runs that lack one."""
    lacking = {row.run for row in rows if row.missing}
    return [row for row in rows if row.run not in lacking], [row for row in rows if row.run in lacking]


def _run_ids(grid: Grid, rows: Sequence[Row], moment: Moment) -> tuple[str, ...]:
    """Run ids of a cell's rows; at a shared moment the runs of every arm that pass there."""
    if moment.shared:
        return grid.runs_through({row.node for row in rows}, moment.tokens)
    return tuple(dict.fromkeys(row.run for row in rows))


def _published(
    paper: published.Published | None, arm: str | None, baseline: str, column: Column, moment: Moment, *, last: bool
) -> tuple[float | None, float | None]:
    if paper is None or arm is None:
        return None, None
    value = paper.at(arm, column.name, moment.label, last=last)
    reference = paper.at(baseline, column.name, moment.label, last=last)
    if value is None or reference is None or arm == baseline:
        return value, None
    return value, round(value - reference, 2)
