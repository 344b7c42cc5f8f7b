"""The samples of a table by arm and moment, and the paired differences between arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from analysis import published
from analysis.pooling import pooling_efficiency
from analysis.samples import Column, Grid, Moment, Sampler
from analysis.statistics import Sample, average
from davinci.planning.plan import Plan

Key = tuple[str | None, int]  # (arm, tokens since initialisation); the arm is None where all arms are one
Place = tuple[str | None, Moment]


@dataclass(frozen=True)
class View:
    """What a table shows of a sweep: `arms` in its order, differences to `baseline`, and which evaluated points.

    `points` may be labels (``83.9B``). `average_last` scores an arm by the mean over that many evaluated points, the
    last ones. `equivalence` is the margin, in points, below which a difference is declared not to matter.
    """

    arms: tuple[str, ...]
    baseline: str
    rows: Literal["arm", "point"] = "arm"
    points: Literal["all", "last"] | tuple[str, ...] = "all"
    average_last: int = 1
    equivalence: float | None = None

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """What the sweep file asks for."""
        layout = plan.question.table
        return cls(
            arms=tuple(arm.label for arm in plan.arms),
            baseline=plan.baseline,
            rows=layout.rows,
            points=layout.points,
            average_last=layout.average_last,
            equivalence=plan.question.equivalence,
        )


def places(grid: Grid) -> list[Place]:
    """Every evaluated point: those that all arms share, then arm by arm those it is evaluated at."""
    places: list[Place] = [(None, moment) for moment in grid.moments if moment.shared]
    for arm in grid.sweep.plan.arms:
        own = [moment for moment in grid.moments if not moment.shared and grid.passes(arm.label, moment.tokens)]
        places += [(arm.label, moment) for moment in own]
    return places


def shown(grid: Grid, places: Sequence[Place], view: View) -> list[Place]:
    """The rows of the table, in the view's order: all points, each arm's last one, or those it names."""
    order = {label: index for index, label in enumerate(view.arms)}
    rows = sorted(
        (row for row in places if row[0] is None or row[0] in order), key=lambda row: order.get(row[0] or "", -1)
    )
    if view.points == "last":
        last = {arm: grid.last(arm) for arm in view.arms}
        rows = [(arm, moment) for arm, moment in rows if moment in ([last[arm]] if arm else last.values())]
    elif view.points != "all":
        wanted = view.points
        rows = [(arm, moment) for arm, moment in rows if any(is_at(moment, label) for label in wanted)]
    return sorted(rows, key=lambda row: row[1].tokens) if view.rows == "point" else rows


def is_at(moment: Moment, label: str) -> bool:
    """Whether `label` names the moment: by its name, or by tokens into the stage that round to it."""
    wanted, tokens = published.tokens_of(label), published.tokens_of(moment.label)
    return label in (moment.name, moment.label) or bool(wanted and tokens and abs(tokens / wanted - 1) < 0.01)


def plain(columns: Sequence[Column]) -> list[str]:
    """Names of the columns that are no mean over another one of the table; of equal ones the first."""
    sets = {column.name: frozenset(column.members) for column in columns}
    first = {members: name for name, members in reversed(sets.items())}
    return [name for name, members in sets.items() if first[members] == name and not any(o < members for o in first)]


def samples(grid: Grid, column: Column, places: Sequence[Place]) -> dict[Key, Sample]:
    """The cells of one column that have a score; where all arms are one, by the baseline arm's runs."""
    sampler = Sampler(grid, column)
    found: dict[Key, Sample] = {}
    for arm, moment in places:
        sample = sampler.sample(arm or grid.sweep.plan.baseline, moment.tokens)
        if sample is not None:
            found[arm, moment.tokens] = sample
    return found


def paired(cells: Mapping[Key, Sample], baseline: str, grid: Grid) -> dict[Key, Sample]:
    """Each arm minus `baseline` at equal tokens (or documents, `Grid.level`), over the seeds both have."""
    found: dict[Key, Sample] = {}
    references = {grid.level(*key): sample for key, sample in cells.items() if key[0] == baseline}
    for (arm, tokens), sample in cells.items():
        reference = references.get(grid.level(arm, tokens))
        if arm in (None, baseline) or reference is None:
            continue
        difference = sample.minus(reference)
        if difference is not None:
            found[arm, tokens] = difference
    return found


def efficiency(family: Sequence[Mapping[Key, Sample]]) -> float:
    """Over `family`, columns that are not means of others, and the cells that all have with two seeds or more.

    Columns without a cell in common (arms with suites of their own) are looked at one by one; the least counts.
    """
    if not family:
        return 1.0
    repeated = [{key for key, cell in cells.items() if len(cell.seeds) > 1} for cells in family]
    keys = [key for key in family[0] if all(key in some for some in repeated)]
    if not keys and len(family) > 1:
        return min(efficiency([cells]) for cells in family)
    arms = [key[0] if isinstance(key, tuple) else key for key in keys]
    return float(pooling_efficiency([[cells[key] for key in keys] for cells in family], arms))


def tails(cells: Mapping[Key, Sample], points: Mapping[str, Sequence[Moment]]) -> dict[Key, Sample]:
    """For each arm the mean over its `points`, at the last of them; arms that lack one are left out."""
    found: dict[Key, Sample] = {}
    for arm, moments in points.items():
        own = [cells[arm, moment.tokens] for moment in moments if (arm, moment.tokens) in cells]
        mean = average(own) if own and len(own) == len(moments) else None
        if mean is not None:
            found[arm, moments[-1].tokens] = mean
    return found
