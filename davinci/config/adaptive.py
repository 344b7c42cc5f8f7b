"""Policies: a stage that ends when a domain is learnt, and a mixture that moves toward domains still learning.

The formulas stand in `davinci.adaptive`. Tokens count from the start of the stage; a check is made at the first step
boundary at or after every multiple of its interval, but not at the stage's end, where nothing is left to decide.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from davinci.config.base import Frozen, NotNegative, NotNegativeFloat, Positive, PositiveFloat
from davinci.errors import nearest

# What a policy may watch: nats a token on a domain's held-out text.
METRICS = ("heldout_loss",)
Window = Annotated[int, Field(ge=2)]


class Until(Frozen):
    """The stage ends at the first check at which `metric` of `domain` has stopped improving; `tokens` is its maximum.

    It has stopped where `window` checks are made, at least `min_tokens` are seen, and the metric falls by less than
    `min_slope` per `check_every` tokens: the least-squares slope over the last `window` checks. `sequences` are
    measured at a check.
    """

    metric: str = "heldout_loss"
    domain: str
    check_every: Positive
    window: Window
    min_slope: NotNegativeFloat
    min_tokens: NotNegative = 0
    sequences: Positive = 64

    @field_validator("metric")
    @classmethod
    def _is_known(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no metric {metric!r}" + nearest(metric, METRICS))
        return metric

    @property
    def earliest(self) -> int:
        """Tokens into the stage before which it cannot fire."""
        return max(self.min_tokens, self.window * self.check_every)


class Adapt(Frozen):
    """Every `every` tokens the stage's domains are weighed anew, by how fast their held-out loss falls.

    A domain's proportion in the stage's mixture is multiplied by (its slope / the mean slope) ** `strength`, kept
    within 1 / `bound` and `bound`, and all are normalised; slopes are least-squares over the last `window` checks. The
    first move is at check `window`. `sequences` of each domain are measured at a check.
    """

    every: Positive
    window: Window
    strength: PositiveFloat = 1.0
    bound: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    sequences: Positive = 64

    @property
    def earliest(self) -> int:
        """Tokens into the stage before which the mixture cannot move."""
        return self.window * self.every
