"""A/A comparisons: arms of equal config and other random streams, whose differences are noise by construction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.comparison import Comparison
from analysis.repeats import repeats
from analysis.samples import Grid


@dataclass(frozen=True)
class Floor:
    """The noise an A/A comparison measured.

    `noise` is by column, as a fraction: the standard deviation of a paired difference over seeds, taken about 0, its
    known mean; NaN without a pair. `pairs` counts the differences (replicate and seed) behind it, at `moment` each
    arm's last point. `apart` of `tested` differences of the table were told from noise: false alarms.
    """

    repeats: dict[str, str]
    moment: str
    noise: dict[str, float]
    pairs: int
    tested: int
    apart: int


def floor(grid: Grid, comparison: Comparison) -> Floor | None:
    """What the sweep's A/A arms say about noise; None where no arm repeats another."""
    pairs = repeats(grid.sweep.plan)
    if not pairs:
        return None
    noise: dict[str, float] = {}
    most = 0
    for column in comparison.columns:
        differences = []
        for arm, original in pairs.items():
            left = comparison.cells.get((arm, grid.last(arm).tokens, column.name))
            right = comparison.cells.get((original, grid.last(arm).tokens, column.name))
            if left is not None and right is not None:
                shared = left.by_seed.keys() & right.by_seed.keys()
                differences += [left.by_seed[seed] - right.by_seed[seed] for seed in shared]
        count = len(differences)
        noise[column.name] = math.sqrt(sum(one**2 for one in differences) / count) if differences else math.nan
        most = max(most, count)
    repeated = [arm for arm, original in pairs.items() if original == comparison.baseline]
    tested = [cell for cell in comparison.shown if cell.arm in repeated and cell.difference is not None]
    apart = sum(bool(cell.told_apart) for cell in tested)
    moment = grid.last(next(iter(pairs))).name
    return Floor(pairs, moment, noise, most, len(tested), apart)
