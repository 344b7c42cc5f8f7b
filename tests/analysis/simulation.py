"""Tables with a known truth, thousands at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from analysis.bootstrap import intervals
from analysis.pooling import pooling_efficiency
from analysis.statistics import Estimate, Sample, contributions

Column = dict[tuple[int, int], Sample]
Found = dict[tuple[int, int], Estimate]
Tails = Literal["normal", "t4", "exponential"]


def simulated(
    random: np.random.Generator,
    replicates: int,
    *,
    trunk: float,
    branch: float,
    interaction: float,
    arm_item: float,
    seeds: int = 3,
    arms: int = 3,
    points: int = 3,
    items: int = 60,
) -> list[Column]:
    """Three columns of two benchmarks each, every arm and token count truly at 0.5; noise as standard deviations.

    The runs of a seed share a trunk, the points of a branch share most of its luck, items are shared by everything.
    """
    columns = []
    for _ in range(3):
        column = {}
        shared = random.normal(0, trunk, (replicates, seeds, 1, 1))
        item = random.normal(0, 0.25, (replicates, 1, 2, items))
        common = random.normal(0, interaction * math.sqrt(0.5), (replicates, seeds, 2, items))
        for arm in range(arms):
            own = random.normal(0, branch, (replicates, seeds, 1, 1))
            liking = random.normal(0, arm_item, (replicates, 1, 2, items))
            answers = random.normal(0, interaction * math.sqrt(0.4), (replicates, seeds, 2, items))
            for point in range(points):
                late = random.normal(0, branch / 2, (replicates, seeds, 1, 1))
                jitter = random.normal(0, interaction * math.sqrt(0.1), (replicates, seeds, 2, items))
                scores = 0.5 + shared + item + common + own + liking + answers + late + jitter
                parts = [contributions(scores[:, :, index], 2) for index in range(2)]
                values = scores.mean(axis=(2, 3))
                column[arm, point] = Sample(tuple(range(seeds)), values, np.concatenate(parts, axis=-1))
        columns.append(column)
    return columns


REGIMES = {
    "items dominate": {"trunk": 0.005, "branch": 0.005, "interaction": 0.4, "arm_item": 0.0},
    "seeds dominate": {"trunk": 0.05, "branch": 0.03, "interaction": 0.1, "arm_item": 0.0},
    "mixed": {"trunk": 0.02, "branch": 0.02, "interaction": 0.3, "arm_item": 0.15},
}


def bare(
    random: np.random.Generator,
    replicates: int,
    *,
    trunk: float,
    branch: float,
    point: float,
    seeds: int = 3,
    arms: int = 3,
    points: int = 3,
    columns: int = 3,
    scales: Sequence[float] = (1.0,),
    together: float = 0.0,
    tails: Tails = "normal",
) -> list[Column]:
    """Columns without items, all truly at 0; noise as standard deviations, times a column's scale.

    `together` is the share of the noise's variance that all columns have in common; `tails` the form of every part.
    """

    def noise(scale: float, *shape: int) -> Any:
        drawn = [_standard(random, tails, (replicates, *shape, seeds)) for _ in range(columns + 1)]
        return [scale * (math.sqrt(together) * drawn[-1] + math.sqrt(1 - together) * own) for own in drawn[:-1]]

    parts = zip(noise(trunk, 1, 1), noise(branch, arms, 1), noise(point, arms, points), strict=True)
    found = []
    for index, (shared, own, each) in enumerate(parts):
        values = scales[index % len(scales)] * (shared + own + each)
        cells = {(arm, at): values[:, arm, at] for arm in range(arms) for at in range(points)}
        found.append({key: Sample(tuple(range(seeds)), one, None) for key, one in cells.items()})
    return found


def _standard(random: np.random.Generator, tails: Tails, shape: tuple[int, ...]) -> Any:
    """Draws of mean 0 and variance 1."""
    if tails == "t4":
        return random.standard_t(4, shape) / math.sqrt(2)
    return random.normal(size=shape) if tails == "normal" else random.exponential(size=shape) - 1


def against_first(column: Column) -> Column:
    return {key: cell.minus(column[0, key[1]]) for key, cell in column.items() if key[0]}


def tables(columns: Sequence[Column]) -> tuple[list[Found], list[Found]]:
    """Scores and differences of every column, as `comparison.compare` computes them."""
    paired = [against_first(column) for column in columns]
    plain, real = (
        pooling_efficiency([list(column.values()) for column in family], [arm for arm, _ in family[0]])
        for family in (columns, paired)
    )
    return [intervals(column, plain) for column in columns], [intervals(column, real) for column in paired]


def covered(found: Sequence[Found], truth: float) -> float:
    """Share of intervals that hold the truth."""
    return float(np.mean([np.abs(one.mean - truth) <= one.half_width for column in found for one in column.values()]))


def called(differences: Sequence[Found]) -> float:
    """Share of tables in which Holm calls any difference: it does where the smallest p passes Bonferroni."""
    p = [one.p for column in differences for one in column.values()]
    return float(np.mean(np.min(p, axis=0) * len(p) < 0.05))


# Shares of the noise: nothing in common, the trunk's, the branch's, some of each.
FORMS = {
    "independent": {"trunk": 0.0, "branch": 0.0, "point": 1.0},
    "trunk": {"trunk": 1.0, "branch": 0.3, "point": 0.2},
    "branch": {"trunk": 0.0, "branch": 1.0, "point": 0.3},
    "mixed": {"trunk": 1.0, "branch": 1.0, "point": 0.5},
}
