"""Arms against the baseline: every cell, every difference, what is noise, and the verdict on the hypothesis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import published
from analysis.samples import Column, Grid, Moment, Row, Sampler
from analysis.statistics import Estimate, Sample, average, estimate, holm, pooling_efficiency
from davinci.accounting.power import LEVEL


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
    """One table's worth of cells, and what its design could have detected.

    `rows` are those the table shows, in its order; `cells` holds every evaluated point, for figures and verdict.
    `detectable` is by column, as a fraction: the median over the table's differences of the smallest true difference
    told from noise with 80% power. `chance`: by column and arm what guessing scores, None where the arm's suite has
    nothing of the column.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str | None, Moment], ...]
    cells: dict[tuple[str | None, int, str], Cell]
    detectable: dict[str, float]
    chance: dict[str, dict[str, float | None]]
    baseline: str
    efficiency: tuple[float, float]

    @property
    def shown(self) -> list[Cell]:
        """The cells of the table, row by row."""
        return [cell for arm, moment in self.rows for cell in self.row(arm, moment)]

    def row(self, arm: str | None, moment: Moment) -> list[Cell]:
        return [self.cells[arm, moment.tokens, column.name] for column in self.columns]


@dataclass(frozen=True)
class Verdict:
    """What became of the hypothesis, judged at `moment`. `word` is one of supported, opposite, noise, unknown."""

    word: str
    text: str
    difference: Estimate | None = None
    moment: Moment | None = None


@dataclass(frozen=True)
class AboveChance:
    """One benchmark at the last moment, averaged over the arms that ask it this way: score minus chance.

    `name` is the benchmark's, with its protocol where arms ask it under several.
    """

    name: str
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
Place = tuple[str | None, Moment]


def compare(grid: Grid, columns: Sequence[Column], paper: published.Published | None = None) -> Comparison:
    """Compute the table of `columns`. Cells and differences are pooled by column; see `analysis.statistics`.

    All evaluated points are pooled; Holm's family and the detectable difference are those of the rows shown.
    """
    baseline = grid.sweep.plan.baseline
    places = _places(grid)
    rows = _shown(grid, places)
    shown = {(arm, moment.tokens) for arm, moment in rows}
    sampled = {column.name: _samples(grid, column, places) for column in columns}
    paired = {name: _paired(cells, baseline) for name, cells in sampled.items()}
    plain = _plain(columns)
    efficiency = _efficiency([sampled[name] for name in plain]), _efficiency([paired[name] for name in plain])
    cells: dict[tuple[str | None, int, str], Cell] = {}
    detectable: dict[str, float] = {}
    for column in columns:
        scores = estimate(sampled[column.name], efficiency[0])
        differences = estimate(paired[column.name], efficiency[1])
        tested = {key: one for key, one in differences.items() if key in shown}
        adjusted = dict(zip(tested, holm([float(one.p) for one in tested.values()]), strict=True))
        found = [float(one.detectable) for one in tested.values() if one.covers]
        detectable[column.name] = float(np.median(found)) if found else math.nan
        for arm, moment in places:
            planned = grid.rows(arm or baseline, moment.tokens, column)
            there, absent = _present(planned)
            figures = _published(paper, arm, baseline, column, moment, last=moment is grid.moments[-1])
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
    arms = [arm.label for arm in grid.sweep.plan.arms]
    chance = {column.name: {arm: grid.chance(arm, column) for arm in arms} for column in columns}
    return Comparison(tuple(columns), tuple(rows), cells, detectable, chance, baseline, efficiency)


def _places(grid: Grid) -> list[Place]:
    """Every evaluated point: those that all arms share, then arm by arm those it is evaluated at."""
    places: list[Place] = [(None, moment) for moment in grid.moments if moment.shared]
    for arm in grid.sweep.plan.arms:
        own = [moment for moment in grid.moments if not moment.shared and grid.passes(arm.label, moment.tokens)]
        places += [(arm.label, moment) for moment in own]
    return places


def _shown(grid: Grid, places: Sequence[Place]) -> list[Place]:
    """The rows of the table: all points or each arm's last one, by arm or by point."""
    layout = grid.sweep.plan.question.table
    rows = list(places)
    if layout.points == "last":
        last = {arm.label: grid.last(arm.label) for arm in grid.sweep.plan.arms}
        rows = [(arm, moment) for arm, moment in rows if moment in ([last[arm]] if arm else last.values())]
    return sorted(rows, key=lambda row: row[1].tokens) if layout.rows == "point" else rows


def _plain(columns: Sequence[Column]) -> list[str]:
    """Names of the columns that are no mean over another one of the table; of equal ones the first."""
    sets = {column.name: frozenset(column.benchmarks) for column in columns}
    first = {members: name for name, members in reversed(sets.items())}
    return [name for name, members in sets.items() if first[members] == name and not any(o < members for o in first)]


def _samples(grid: Grid, column: Column, places: Sequence[Place]) -> dict[Key, Sample]:
    sampler = Sampler(grid, column)
    found: dict[Key, Sample] = {}
    for arm, moment in places:
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


def _efficiency(family: Sequence[Mapping[Key, Sample]]) -> float:
    """Over `family`, columns that are not means of others, and the cells that all have with two seeds or more.

    Columns without a cell in common (arms with suites of their own) are looked at one by one; the least counts.
    """
    repeated = [{key for key, cell in cells.items() if len(cell.seeds) > 1} for cells in family]
    keys = [key for key in family[0] if all(key in some for some in repeated)]
    if not keys and len(family) > 1:
        return min(_efficiency([cells]) for cells in family)
    return float(pooling_efficiency([[cells[key] for key in keys] for cells in family]))


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


def judge(grid: Grid, comparisons: Sequence[Comparison]) -> Verdict | None:
    """The verdict on the sweep's hypothesis at the last point that its arm and the baseline have, one test at 5%.

    Looks the metric up in `comparisons`, the first that has it; None where the sweep states no hypothesis.
    """
    hypothesis = grid.sweep.plan.question.hypothesis
    if hypothesis is None:
        return None
    wanted: dict[str, tuple[Comparison, str]] = {}
    for one in comparisons:
        for each in one.columns:
            wanted.setdefault(each.name.lower(), (one, each.name))
    if hypothesis.metric.lower() not in wanted:
        return Verdict("unknown", f"cannot be judged: {hypothesis.metric!r} is none of {', '.join(wanted)}")
    comparison, column = wanted[hypothesis.metric.lower()]
    baseline, cells = comparison.baseline, comparison.cells
    if hypothesis.arm == baseline or hypothesis.arm not in [arm.label for arm in grid.sweep.plan.arms]:
        return Verdict("unknown", f"cannot be judged: {hypothesis.arm!r} is no arm beside the baseline")
    both = [
        moment
        for moment in grid.moments
        if (hypothesis.arm, moment.tokens, column) in cells and (baseline, moment.tokens, column) in cells
    ]
    if not both:
        return Verdict("unknown", f"cannot be judged: {hypothesis.arm} and {baseline} are evaluated at no common point")
    last = both[-1]
    cell, reference = cells[hypothesis.arm, last.tokens, column], cells[baseline, last.tokens, column]
    if cell.difference is None or not cell.difference.covers:
        absent = ", ".join([*cell.absent, *reference.absent]) or "a second seed and item scores"
        return Verdict("unknown", f"not yet: {column} at {last.name} lacks {absent}")
    difference = cell.difference
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    sides = {"increase": low > 0, "decrease": high < 0, "any": low > 0 or high < 0}
    if sides[hypothesis.direction]:
        return Verdict("supported", "supported", difference, last)
    if low > 0 or high < 0:
        return Verdict("opposite", "not supported (opposite)", difference, last)
    smallest = f"{100 * float(difference.detectable):.1f}"
    return Verdict("noise", f"cannot be told from noise (MDD {smallest})", difference, last)


def above_chance(grid: Grid) -> list[AboveChance]:
    """Every benchmark and protocol at the last moment against its chance score, averaged over the arms that have it,
    pooled over the moments."""
    family: dict[tuple[str, str], dict[Key, Sample]] = {}
    for test, about in grid.tests.items():
        column = Column(test[0], (test[0],))
        sampler = Sampler(grid, column)
        arms = [arm.label for arm in grid.sweep.plan.arms if grid.asks(arm.label, *test)]
        family[test] = {}
        for moment in grid.moments:
            found = [sampler.sample(arm, moment.tokens) for arm in arms]
            mean = average([one for one in found if one is not None])
            if mean is not None:
                family[test][None, moment.tokens] = Sample(mean.seeds, mean.values - about.chance, mean.items)
    efficiency = _efficiency(list(family.values()))
    last = grid.moments[-1].tokens
    rows = []
    for (name, protocol), cells in family.items():
        excess = estimate(cells, efficiency).get((None, last))
        if excess is not None:
            about = grid.tests[name, protocol]
            items = max(row.items for row in grid.at(last) if (row.benchmark, row.protocol) == (name, protocol))
            score = float(excess.mean) + about.chance
            several = sum(benchmark == name for benchmark, _ in family) > 1
            full = f"{name} ({protocol})" if several else name
            rows.append(AboveChance(full, name, about.domain, protocol, items, about.chance, score, excess))
    return rows
