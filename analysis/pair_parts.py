"""What a comparison of two runs is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.load import Sweep
from analysis.statistics import Estimate
from davinci.accounting.power import LEVEL
from davinci.planning.plan import PlannedRun


@dataclass(frozen=True)
class Metric:
    """One number of both runs at one point. Fractions for scores, nats or bits for losses.

    `estimate` is of right minus left (None where nothing is known of its noise), `p_adjusted` Holm over the scores.
    """

    group: str
    name: str
    tokens: int
    left: float
    right: float
    estimate: Estimate | None = None
    p_adjusted: float = math.nan

    @property
    def told_apart(self) -> bool:
        return self.p_adjusted < 1 - LEVEL


@dataclass(frozen=True)
class Side:
    """A run with the sweep it belongs to."""

    sweep: Sweep
    run: PlannedRun

    @property
    def name(self) -> str:
        return f"{self.sweep.plan.sweep}/{self.run.arm}/{self.run.seed}"
