"""Arms against the baseline: every cell, every difference, what is noise, and the verdict on the hypothesis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import published
from analysis.samples import OVERALL, Column, Grid, Moment, Row, Sampler
from analysis.statistics import LEVEL, Estimate, Sample, average, estimate, holm, pooling_efficiency


@dataclass(frozen=True)
class Cell:
    """One arm at one moment in one column. Scores are fractions; `published` is in percent.

    Attributes:
        arm: label, or None for the one row that all arms share.
        score: None where no seed has every benchmark of the column.
        difference: arm minus baseline, paired; None for the baseline, a shared moment, or no seed in common.
        p_adjusted: of the difference, Holm over the column's differences.
        published: the paper's figure for this cell; `published_difference` to its baseline.
        by_seed: score of each seed behind it.
        runs: run ids behind the score; `absent`: planned run ids that the score lacks.
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

    @property
    def told_apart(self) -> bool | None:
        """Whether the difference can be told from noise; None where there is no difference to judge."""
        if self.difference is None:
            return None
        return bool(self.p_adjusted < 1 - LEVEL)


@dataclass(frozen=True)
class Comparison:
    """One table's worth of cells, in row order, and what its design could have detected.

    `detectable` is by column, as a fraction: the median over the table's differences of the smallest true difference
    told from noise with 80% power.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str | None, Moment], ...]
    cells: dict[tuple[str | None, int, str], Cell]
    detectable: dict[str, float]
    baseline: str
    efficiency: tuple[float, float]

    def row(self, arm: str | None, moment: Moment) -> list[Cell]:
        return [self.cells[arm, moment.tokens, column.name] for column in self.columns]


@dataclass(frozen=True)
class Verdict:
    """What became of the hypothesis. `word` is one of supported, opposite, noise, unknown."""

    word: str
    text: str
    difference: Estimate | None = None


@dataclass(frozen=True)
class AboveChance:
    """One benchmark at the last moment, averaged over all arms: score minus chance."""

    benchmark: str
    domain: str
    protocol: str
    items: int
    chance: float
    score: float
    excess: Estimate

    @property
    def above(self) -> bool:
        return bool(self.excess.mean - self.excess.half_width > 0)


Key = tuple[str | None, int]  # (arm, tokens since initialisation); the arm is None where all arms are one
Family = dict[str, dict[Key, Sample]]  # the samples of a table, by column


def compare(grid: Grid, columns: Sequence[Column], paper: published.Published | None = None) -> Comparison:
    """Compute the table of `columns`. Cells and differences are pooled by column; see `analysis.statistics`."""
    baseline = grid.sweep.plan.baseline
    moments = grid.moments
    rows: list[tuple[str | None, Moment]] = [(None, moment) for moment in moments if moment.shared]
    rows += [(arm.label, moment) for arm in grid.sweep.plan.arms for moment in moments if not moment.shared]
    sampled = {column.name: _samples(grid, column, rows) for column in columns}
    paired = {name: _paired(cells, baseline) for name, cells in sampled.items()}
    efficiency = _efficiency(sampled), _efficiency(paired)
    cells: dict[tuple[str | None, int, str], Cell] = {}
    detectable: dict[str, float] = {}
    for column in columns:
        scores = estimate(sampled[column.name], efficiency[0])
        differences = estimate(paired[column.name], efficiency[1])
        adjusted = dict(zip(differences, holm([float(one.p) for one in differences.values()]), strict=True))
        found = [float(one.detectable) for one in differences.values() if one.covers]
        detectable[column.name] = float(np.median(found)) if found else math.nan
        for arm, moment in rows:
            planned = grid.rows(arm or baseline, moment.tokens, column)
            there, absent = _present(planned)
            figures = _published(paper, arm, baseline, column, moment, last=moment is moments[-1])
            cells[arm, moment.tokens, column.name] = Cell(
                arm=arm,
                moment=moment,
                column=column.name,
                score=scores.get((arm, moment.tokens)),
                difference=differences.get((arm, moment.tokens)),
                p_adjusted=adjusted.get((arm, moment.tokens), math.nan),
                published=figures[0],
                published_difference=figures[1],
                by_seed=_by_seed(sampled[column.name].get((arm, moment.tokens))),
                runs=_run_ids(grid, there, moment),
                absent=_run_ids(grid, absent, moment),
                items=sum({row.benchmark: row.items for row in there}.values()),
            )
    return Comparison(tuple(columns), tuple(rows), cells, detectable, baseline, efficiency)


def _samples(grid: Grid, column: Column, rows: Sequence[tuple[str | None, Moment]]) -> dict[Key, Sample]:
    sampler = Sampler(grid, column)
    found: dict[Key, Sample] = {}
    for arm, moment in rows:
        sample = sampler.sample(arm or grid.sweep.plan.baseline, moment.tokens)
        if sample is not None:
            found[arm, moment.tokens] = sample
    return found


def _by_seed(sample: Sample | None) -> dict[int, float]:
    return {} if sample is None else dict(zip(sample.seeds, sample.values.tolist(), strict=True))


def _paired(cells: Mapping[Key, Sample], baseline: str) -> dict[Key, Sample]:
    found: dict[Key, Sample] = {}
    for (arm, tokens), sample in cells.items():
        reference = cells.get((baseline, tokens))
        if arm in (None, baseline) or reference is None:
            continue
        difference = sample.minus(reference)
        if difference is not None:
            found[arm, tokens] = difference
    return found


def _efficiency(family: Family) -> float:
    """Over the columns that are not means of others, and the cells that all of those have with two seeds or more."""
    names = [name for name in family if name != OVERALL] or list(family)
    repeated = [{key for key, cell in family[name].items() if len(cell.seeds) > 1} for name in names]
    keys = [key for key in family[names[0]] if all(key in some for some in repeated)]
    return float(pooling_efficiency([[family[name][key] for key in keys] for name in names]))


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


def judge(grid: Grid, domains: Comparison, benchmarks: Comparison) -> Verdict | None:
    """The verdict on the sweep's hypothesis at the last moment, one test at 5%; None where it states none."""
    hypothesis = grid.sweep.plan.question.hypothesis
    if hypothesis is None:
        return None
    wanted = {column.name.lower(): (one, column.name) for one in (domains, benchmarks) for column in one.columns}
    if hypothesis.metric.lower() not in wanted:
        return Verdict("unknown", f"cannot be judged: {hypothesis.metric!r} is none of {', '.join(wanted)}")
    comparison, column = wanted[hypothesis.metric.lower()]
    last = grid.moments[-1]
    cell = comparison.cells.get((hypothesis.arm, last.tokens, column))
    if cell is None or hypothesis.arm == comparison.baseline:
        return Verdict("unknown", f"cannot be judged: {hypothesis.arm!r} is no arm beside the baseline")
    if cell.difference is None or not cell.difference.covers:
        reference = comparison.cells[comparison.baseline, last.tokens, column]
        absent = ", ".join([*cell.absent, *reference.absent]) or "a second seed and item scores"
        return Verdict("unknown", f"not yet: {column} at {last.name} lacks {absent}")
    difference = cell.difference
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    sides = {"increase": low > 0, "decrease": high < 0, "any": low > 0 or high < 0}
    if sides[hypothesis.direction]:
        return Verdict("supported", "supported", difference)
    if low > 0 or high < 0:
        return Verdict("opposite", "not supported (opposite)", difference)
    return Verdict("noise", f"cannot be told from noise (MDD {100 * float(difference.detectable):.1f})", difference)


def above_chance(grid: Grid) -> list[AboveChance]:
    """Every benchmark at the last moment against its chance score, averaged over arms, pooled over the moments."""
    family: Family = {}
    for column in grid.benchmark_columns:
        sampler = Sampler(grid, column)
        chance = grid.benchmarks[column.name].chance
        family[column.name] = {}
        for moment in grid.moments:
            found = [sampler.sample(arm.label, moment.tokens) for arm in grid.sweep.plan.arms]
            mean = average([one for one in found if one is not None])
            if mean is not None:
                family[column.name][None, moment.tokens] = Sample(mean.seeds, mean.values - chance, mean.items)
    efficiency = _efficiency(family)
    last = grid.moments[-1].tokens
    rows = []
    for name, cells in family.items():
        excess = estimate(cells, efficiency).get((None, last))
        if excess is not None:
            about = grid.benchmarks[name]
            items = max(row.items for row in grid.all_rows if row.benchmark == name and row.tokens == last)
            score = float(excess.mean) + about.chance
            rows.append(AboveChance(name, about.domain, about.protocol, items, about.chance, score, excess))
    return rows
