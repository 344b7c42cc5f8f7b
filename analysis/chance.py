"""Every benchmark against what guessing scores."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.bootstrap import intervals
from analysis.cells import Key, efficiency
from analysis.samples import Column, Grid, Sampler
from analysis.statistics import Estimate, Sample, average


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
    real = efficiency(list(family.values()))
    last = grid.moments[-1].tokens
    rows = []
    for (name, protocol), cells in family.items():
        excess = intervals(cells, real).get((None, last))
        if excess is not None:
            about = grid.tests[name, protocol]
            items = max(row.items for row in grid.at(last) if (row.benchmark, row.protocol) == (name, protocol))
            score = float(excess.mean) + about.chance
            several = sum(benchmark == name for benchmark, _ in family) > 1
            full = f"{name} ({protocol})" if several else name
            rows.append(AboveChance(full, name, about.domain, protocol, items, about.chance, score, excess))
    return rows
