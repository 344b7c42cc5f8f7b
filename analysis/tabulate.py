"""From a specification and sweeps to one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from analysis import layout, models, published
from analysis import spec as specs
from analysis.comparison import Comparison, adjusted
from analysis.load import load
from analysis.mixed import by_kind, compare_columns, joined
from analysis.replicates import floor
from analysis.samples import Column, Grid
from analysis.spec import Spec
from analysis.tables import Table, Value
from davinci.errors import UserError
from davinci.store import Store


def tabulate(
    store: Store,
    names: Sequence[str],
    spec: Spec,
    where: str = "table",
    *,
    suite: str | None = None,
    externals: Sequence[str] = (),
) -> list[Table]:
    """The tables of sweeps `names`: one for all, or, in the layout of models, one each.

    Several sweeps are rows of one table under the same columns. Differences are taken within a sweep, to its own
    baseline; Holm counts them all.

    Args:
        store: of the records.
        names: of the sweeps.
        spec: of the table.
        where: what to call the specification in messages.
        suite: instead of what the sweeps ask for, what was evaluated on this suite on demand.
        externals: names of models in ``external/`` of the store, for the layout of models.

    Raises:
        UserError: no such sweep, or the specification names what a sweep has not.
    """
    grids = [Grid(load(store, name, suite)) for name in dict.fromkeys(names)]
    if spec.layout == "models":
        return [_models(store, grid, spec, where, externals) for grid in grids]
    columns = [specs.columns(spec, grid, where) for grid in grids]
    if not spec.columns:
        columns = _common(grids, columns)
    views = [specs.view(spec, grid, where) for grid in grids]
    kinds = [
        by_kind(grid, own, specs.figures(spec, grid), view)
        for grid, own, view in zip(grids, columns, views, strict=True)
    ]
    left = iter(adjusted([one for kind in kinds for one in kind]))
    compared = [
        joined([next(left) for _ in kind], own, view) for kind, own, view in zip(kinds, columns, views, strict=True)
    ]
    parts = [_part(grid, comparison, spec) for grid, comparison in zip(grids, compared, strict=True)]
    table = parts[0] if len(parts) == 1 else _joined(grids, columns, parts)
    return [table if spec.title is None else replace(table, title=f"{spec.title} ({table.title})")]


def _part(grid: Grid, comparison: Comparison, spec: Spec) -> Table:
    noise = floor(grid, comparison)
    table = layout.paper_table(grid.sweep, comparison, noise, paper=spec.paper, decimals=spec.decimals)
    names = [column.name for column in comparison.columns]
    notes = [f"Note: {note}." for note in grid.sweep.notes]
    return replace(table, spans=specs.spans(spec, names, 1 + (spec.paper == "side")), notes=(*table.notes, *notes))


def _common(grids: Sequence[Grid], columns: Sequence[Sequence[Column]]) -> list[list[Column]]:
    """The columns that all sweeps have, by name."""
    names = [column.name for column in columns[0] if all(column.name in {one.name for one in own} for own in columns)]
    if not names:
        have = "; ".join(
            f"{grid.sweep.plan.sweep}: {', '.join(column.name for column in own)}"
            for grid, own in zip(grids, columns, strict=True)
        )
        raise UserError(f"table: the sweeps have no column in common ({have}); name some: columns=[Overall]")
    return [[column for name in names for column in own if column.name == name] for own in columns]


def _joined(grids: Sequence[Grid], columns: Sequence[Sequence[Column]], parts: Sequence[Table]) -> Table:
    """The tables of several sweeps below each other, the sweep a row's first name; footnotes that agree stand once."""
    names = [grid.sweep.plan.sweep for grid in grids]
    groups = []
    for name, part in zip(names, parts, strict=True):
        first = True
        for group in part.groups:
            rows = []
            for row in group:
                rows.append((Value(name if first else "", "strong"), *row))
                first = False
            groups.append(tuple(rows))
    said: dict[str, list[str]] = {}
    for name, part in zip(names, parts, strict=True):
        for note in part.notes:
            said.setdefault(note, []).append(name)
    notes = [note if len(where) == len(names) else f"{', '.join(where)}: {note}" for note, where in said.items()]
    if any(list(own) != list(columns[0]) for own in columns):
        notes.append("Columns of one name average other benchmarks in other sweeps: compare within a sweep.")
    notes.append("Differences are within a sweep: nothing controls what differs between sweeps.")
    data = [{"sweep": name} | cell for name, part in zip(names, parts, strict=True) for cell in part.data]
    return replace(
        parts[0],
        title=f"{', '.join(names)}: {layout.measured(columns[0])}",
        headers=("Sweep", *parts[0].headers),
        stubs=parts[0].stubs + 1,
        groups=tuple(groups),
        notes=tuple(notes),
        data=tuple(data),
    )


def _models(store: Store, grid: Grid, spec: Spec, where: str, externals: Sequence[str]) -> Table:
    """A row a benchmark and average, a column a model."""
    shown = specs.view(spec, grid, where)
    wanted = specs.columns(spec, grid, where) if spec.columns else [*grid.benchmark_columns, *grid.domain_columns]
    averages = [*grid.domain_columns, *grid.loss_columns]
    rows = [[column for column in own if column in wanted] for own in (grid.benchmark_columns, averages)]
    everywhere = replace(shown, points="all", average_last=1)
    benchmarks, domains = (compare_columns(grid, own, None, everywhere) if own else None for own in rows)
    others = models.columns(store, externals, grid)
    paper = _published_models(spec) if spec.paper == "side" else {}
    table = models.model_table(grid, domains, benchmarks, others, arms=shown.arms, paper=paper, decimals=spec.decimals)
    return table if spec.title is None else replace(table, title=f"{spec.title} ({table.title})")


def _published_models(spec: Spec) -> dict[str, dict[str, Any]]:
    """Scores in percent by model and row of the published benchmarks by model, averages by their plain name."""
    found: dict[str, dict[str, Any]] = {}
    for row in published.rows(spec.published or "table6_models"):
        if "benchmark" not in row:
            raise UserError(f"published: {spec.published} has no benchmarks by model; table6_models has")
        for model, value in row.items():
            if model != "benchmark":
                found.setdefault(model, {})[row["benchmark"].removeprefix("Avg ")] = float(value)
    return found
