"""What the numbers of a table's column are: shares of items answered right, or held-out losses.

Inside the statistics more is always better: a loss is kept there with its sign turned, and shown with it turned back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from analysis.tables import points
from davinci.planning.heldout_metrics import heldout_metric


@dataclass(frozen=True)
class Unit:
    """A shown number is `scale` times the one inside the statistics, with `finer` decimals more than a percentage."""

    name: str
    scale: float
    finer: int

    @property
    def lower_is_better(self) -> bool:
        return self.scale < 0

    @property
    def mark(self) -> str:
        """What stands behind a column's name where less is better."""
        return " ↓" if self.lower_is_better else ""

    @property
    def of_difference(self) -> str:
        """The unit of a difference: one of percentages is in points."""
        return "points" if self is PERCENT else self.name

    def shown(self, value: float) -> float:
        return self.scale * float(value)

    def width(self, value: float) -> float:
        """A length, such as half of an interval."""
        return abs(self.scale) * float(value)

    def text(self, value: float, *, signed: bool = False, decimals: int = 1) -> str:
        return points(self.shown(value), signed=signed, decimals=decimals + self.finer)

    def width_text(self, value: float, *, decimals: int = 1) -> str:
        return points(self.width(value), decimals=decimals + self.finer)


PERCENT = Unit("percent", 100.0, 0)


@cache
def unit(column: str) -> Unit:
    """The unit of the column of that name."""
    metric = heldout_metric(column)
    return PERCENT if metric is None else Unit(metric.unit, -1.0, 2)
