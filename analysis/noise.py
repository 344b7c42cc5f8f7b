"""Seed noise for a sweep of one seed: what its own A/A arms and the store's other sweeps say of the same columns.

Only arms of the sweep's suite that are like its own count (`davinci.planning.likeness`). Each sweep gives its pooled s2
and w (`analysis.statistics`) for scores and for paired differences, with their effective degrees of freedom, and the
sweeps are pooled by those. Arms of equal config (A/A) are further seeds of one cell. Where no sweep has a pair of arms
with two seeds, a difference is given twice the noise of a score, which is what it has when nothing pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis import cells as sampling
from analysis.cells import Key
from analysis.load import load
from analysis.repeats import repeats
from analysis.samples import Column, Grid
from analysis.statistics import Noise, Sample, pooled
from davinci.errors import UserError
from davinci.planning.likeness import Likeness
from davinci.planning.plan import Plan, load_plan

# Degrees of freedom beyond which no more sweeps are read: the standard deviation is then known to 10%.
ENOUGH = 50


@dataclass(frozen=True)
class Borrowed:
    """Noise by column, and the sweeps it is from (``qa_ratio (3 seeds x 3 arms)``)."""

    scores: dict[str, Noise]
    differences: dict[str, Noise]
    sources: tuple[str, ...]


@dataclass
class _Sum:
    """Noise of one column so far: sums of variances times degrees of freedom."""

    variance: float = 0.0
    interaction: float = 0.0
    dof: float = 0.0

    def add(self, cells: Mapping[Key, Sample], efficiency: float) -> None:
        pool = pooled(cells)
        dof = pool.degrees * efficiency
        self.variance += dof * float(pool.variance)
        self.interaction += dof * float(pool.interaction)
        self.dof += dof

    def noise(self) -> Noise | None:
        if not self.dof:
            return None
        return Noise(self.variance / self.dof, self.interaction / self.dof, self.dof)


@dataclass
class _Sums:
    scores: dict[str, _Sum] = field(default_factory=dict)
    differences: dict[str, _Sum] = field(default_factory=dict)

    def add(self, grid: Grid, columns: Sequence[Column], arms: Sequence[str]) -> bool:
        """Take in what a sweep says of `columns`; returns whether that is anything."""
        known = [column for column in columns if all(name in grid.benchmarks for name in column.benchmarks)]
        places = [(arm, moment) for arm, moment in sampling.places(grid) if arm is None or arm in arms]
        sampled = {column.name: sampling.samples(grid, column, places) for column in known}
        baseline = grid.sweep.plan.baseline
        paired = {name: sampling.paired(cells, baseline, grid) for name, cells in sampled.items()}
        again = repeats(grid.sweep.plan)
        cells = {name: _with_repeats(found, again) for name, found in sampled.items()}
        any_scores = _add(self.scores, cells, known)
        return _add(self.differences, paired, known) or any_scores


def _add(sums: dict[str, _Sum], family: Mapping[str, Mapping[Key, Sample]], columns: Sequence[Column]) -> bool:
    repeated = {
        name: {key: cell for key, cell in found.items() if len(cell.seeds) > 1} for name, found in family.items()
    }
    if not any(repeated.values()):
        return False
    efficiency = sampling.efficiency([repeated[name] for name in sampling.plain(columns)])
    for name, found in repeated.items():
        sums.setdefault(name, _Sum()).add(found, efficiency)
    return True


def _with_repeats(cells: Mapping[Key, Sample], repeats: Mapping[str, str]) -> dict[Key, Sample]:
    """`cells` with those of arms that repeat another as further seeds of that one's."""
    alike: dict[Key, list[Sample]] = {}
    for (arm, tokens), cell in cells.items():
        alike.setdefault((repeats.get(arm, arm) if arm else None, tokens), []).append(cell)
    found = {}
    for key, parts in alike.items():
        values = np.concatenate([part.values for part in parts])
        known = [part.items for part in parts if part.items is not None]
        items = np.concatenate(known) if len(known) == len(parts) else None
        found[key] = Sample(tuple(range(len(values))), values, items)
    return found


def borrow(grid: Grid, columns: Sequence[Column]) -> Borrowed | None:
    """The noise of `columns` in the sweep's own A/A arms, then in the store's other sweeps, the newest first.

    None where nothing of the same suite that is like it has a second seed. A sweep that cannot be read is passed over:
    whoever needs it is told.
    """
    plan, store = grid.sweep.plan, grid.sweep.store
    sums, sources = _Sums(), []
    own = _arms(plan, plan)
    if repeats(plan) and sums.add(grid, columns, own):
        sources.append(f"{plan.sweep} itself (A/A arms)")
    paths = sorted((store.root / "sweeps").glob("*/launched.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for name in (path.parent.name for path in paths):
        if name == plan.sweep or all(one.dof >= ENOUGH for one in sums.differences.values() or [_Sum()]):
            continue
        try:
            other = load_plan(store, name)
            arms = _arms(other, plan)
            if not arms or (len(other.seeds) < 2 and not repeats(other)):
                continue
            there = Grid(load(store, name))
        except UserError:
            continue
        if sums.add(there, columns, arms):
            sources.append(f"{name} ({len(other.seeds)} seeds x {len(arms)} arms)")
    scores = {name: noise for name, one in sums.scores.items() if (noise := one.noise())}
    if not scores:
        return None
    twice = {name: Noise(2 * one.variance, 2 * one.interaction, one.dof) for name, one in scores.items()}
    paired = {name: noise for name, one in sums.differences.items() if (noise := one.noise())}
    return Borrowed(scores, twice | paired, tuple(sources))


def _arms(other: Plan, plan: Plan) -> list[str]:
    """Arms of `other` that have the suite of `plan`'s baseline arm and are like one of `plan`'s."""
    suite = next(arm.config for arm in plan.arms if arm.is_baseline).evaluation.key
    own = {Likeness.of(arm.config) for arm in plan.arms}
    return [
        arm.label for arm in other.arms if arm.config.evaluation.key == suite and Likeness.of(arm.config).is_like(own)
    ]
