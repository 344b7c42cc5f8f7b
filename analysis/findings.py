"""Everything about one sweep, computed once: what tables, figures, report and ledger are made from."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from analysis import emergence, layout, models, published, tables
from analysis.chance import AboveChance, above_chance
from analysis.comparison import Comparison
from analysis.load import Sweep, load
from analysis.mixed import compare_columns
from analysis.replicates import Floor, floor
from analysis.samples import Grid, Moment
from analysis.tables import Table
from analysis.units import unit
from analysis.verdict import Verdict, judge
from davinci.store import Store


@dataclass(frozen=True)
class Findings:
    """What the sweep's records say."""

    sweep: Sweep
    grid: Grid
    main: Comparison
    benchmarks: Comparison
    table: Table
    benchmark_table: Table
    chance_table: Table
    verdict: Verdict | None
    chance: tuple[AboveChance, ...]
    floor: Floor | None
    courses: tuple[emergence.Course, ...]
    models: Table | None = None

    @property
    def last_shown(self) -> dict[str, Moment]:
        """The last point that the table shows of each arm on its own."""
        return {arm: moment for arm, moment in self.main.rows if arm is not None}


@contextmanager
def _uncollected() -> Iterator[None]:
    """Of 500 runs a fifth of the time goes into looking for rubbish, and there is none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            # What was made counts as old: the next collection would go through all of it, for a quarter of a second.
            gc.freeze()
            gc.unfreeze()
            gc.enable()


@_uncollected()
def study(store: Store, name: str, suite: str | None = None, externals: Sequence[str] = ()) -> Findings:
    """Load the sweep's records and compute every table.

    Args:
        store: of the records.
        name: of the sweep.
        suite: instead of what the sweep asks for, what was evaluated on this suite on demand.
        externals: names of models in ``external/`` of the store, for a table of benchmarks by model, beside those
            that the sweep file declares.

    Raises:
        UserError: no such sweep, or its plan names published figures that this project does not carry.
    """
    sweep = load(store, name, suite)
    grid = Grid(sweep)
    others = models.columns(store, externals, grid)
    paper = sweep.plan.question.paper
    for metric in grid.unknown_metrics:
        said = "no benchmark of the suite, no domain of it, Overall nor a held-out loss"
        sweep.notes.append(f"metrics: {metric!r} is {said}")
    figures = published.read(paper.published) if paper and paper.published else None
    main = compare_columns(grid, grid.table_columns, figures)
    benchmarks = compare_columns(grid, grid.benchmark_columns)
    domains = main if main.columns == tuple(grid.domain_columns) else compare_columns(grid, grid.domain_columns)
    judged = [main, domains, benchmarks]
    if hypothesis := sweep.plan.question.hypothesis:
        own = [column for column in grid.loss_columns if column.name.lower() == hypothesis.metric.lower()]
        judged += [compare_columns(grid, own)] if own else []
    noise = floor(grid, main)
    chance = above_chance(grid)
    return Findings(
        sweep=sweep,
        grid=grid,
        main=main,
        benchmarks=benchmarks,
        table=layout.paper_table(sweep, main, noise),
        benchmark_table=layout.paper_table(sweep, benchmarks, floor(grid, benchmarks)),
        chance_table=layout.chance_table(chance, grid.moments[-1].name),
        verdict=judge(grid, judged),
        chance=tuple(chance),
        floor=noise,
        courses=tuple(emergence.courses(sweep)),
        models=models.model_table(grid, domains, benchmarks, others) if others else None,
    )


def verdict_text(found: Findings) -> str | None:
    """``supported: GSM8K, QA-70% − QA-30% at 419B is +3.1 ± 1.2``; None where no hypothesis is stated."""
    hypothesis, verdict = found.sweep.plan.question.hypothesis, found.verdict
    if hypothesis is None or verdict is None:
        return None
    if verdict.difference is None:
        return verdict.text
    of = unit(hypothesis.metric)
    difference = layout.interval_text(verdict.difference, signed=True, of=of)
    difference += f" {of.name}" if of.lower_is_better else ""
    at = f" at {verdict.moment.name}" if verdict.moment else ""
    subject = f"{hypothesis.metric}, {hypothesis.arm} {tables.MINUS} {found.main.baseline}{at}"
    seeds = verdict.difference.seeds
    so_far = f" (so far: {seeds} of {len(found.sweep.plan.seeds)} seeds)" if seeds < len(found.sweep.plan.seeds) else ""
    return f"{verdict.text}: {subject} is {difference}{so_far}"
