"""Comparisons of columns of several units in one table: benchmarks' scores beside held-out losses.

Each unit has seed noise of its own, and is pooled by itself. A margin of equivalence is in points
of score and does not speak of losses. Differences of both are one family for Holm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from analysis import published
from analysis.cells import View
from analysis.comparison import Comparison, adjusted, compare
from analysis.samples import Column, Grid
from analysis.units import PERCENT, unit


def compare_columns(
    grid: Grid, columns: Sequence[Column], paper: published.Published | None = None, view: View | None = None
) -> Comparison:
    """The comparison of `columns`, whatever their units."""
    view = view or View.of(grid.sweep.plan)
    return joined(adjusted(by_kind(grid, columns, paper, view)), columns, view)


def by_kind(grid: Grid, columns: Sequence[Column], paper: published.Published | None, view: View) -> list[Comparison]:
    """A comparison of the scores, one of the losses and one of the bits a byte, as far as `columns` have any: the last
    two are measured on the same text, and do not count as independent witnesses of their noise."""
    kinds: dict[str, list[Column]] = {}
    for column in columns:
        kinds.setdefault(unit(column.name).name, []).append(column)
    return [
        compare(grid, own, paper if name == PERCENT.name else None, _view(view, name)) for name, own in kinds.items()
    ] or [compare(grid, (), paper, view)]


def _view(view: View, unit_name: str) -> View:
    """The view without a margin where the unit is no percentage."""
    return view if unit_name == PERCENT.name else replace(view, equivalence=None)


def joined(parts: Sequence[Comparison], columns: Sequence[Column], view: View) -> Comparison:
    """The parts of one sweep as one comparison of `columns`, in their order."""
    if len(parts) == 1:
        return replace(parts[0], view=view)
    return replace(
        parts[0],
        columns=tuple(columns),
        cells={key: cell for part in parts for key, cell in part.cells.items()},
        detectable={name: least for part in parts for name, least in part.detectable.items()},
        chance={name: chance for part in parts for name, chance in part.chance.items()},
        view=view,
        borrowed=next((part.borrowed for part in parts if part.borrowed), None),
    )
