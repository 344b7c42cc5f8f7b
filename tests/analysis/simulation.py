"""Tables with a known truth, thousands at once."""

from __future__ import annotations

import math

import numpy as np

from analysis.statistics import Sample, contributions


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
) -> list[dict[tuple[int, int], Sample]]:
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
