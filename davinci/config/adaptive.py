"""Policies: a stage that ends when a domain is learnt, and a mixture that moves toward domains still learning.

The formulas stand in `davinci.adaptive`. Tokens count from the start of the stage; a check is made at the first step
boundary at or after every multiple of its interval, but not at the stage's end, where nothing is left to decide.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from davinci.config.base import Frozen, NotNegative, NotNegativeFloat, Positive, PositiveFloat
from davinci.errors import nearest

# What a stage's end may be decided by: nats a token on a domain's held-out text, or a benchmark's score (0 to 1).
METRICS = ("heldout_loss", "benchmark")
Window = Annotated[int, Field(ge=2)]


class Until(Frozen):
    """The stage ends at the first check at which `metric` has stopped improving; the stage's `tokens` are its maximum.

    The metric is the held-out loss of `domain`, of which `sequences` are measured at a check, or the score of
    `benchmark`, one of the run's evaluation suite, over the items that the suite's `limit` leaves. It has stopped where
    `window` checks are made, at least `min_tokens` are seen, and the loss falls, or the score rises, by less than
    `min_slope` per `check_every` tokens: the least-squares slope over the last `window` checks.
    """

    metric: str = "heldout_loss"
    domain: str | None = None
    benchmark: str | None = None
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

    @model_validator(mode="after")
    def _watches_one(self) -> Self:
        if self.metric == "heldout_loss" and (self.domain is None or self.benchmark is not None):
            raise ValueError("metric heldout_loss needs domain, one of the pool's, and takes no benchmark")
        if self.metric == "benchmark" and (self.benchmark is None or self.domain is not None):
            raise ValueError("metric benchmark needs benchmark, one of evaluation.benchmarks, and takes no domain")
        if self.benchmark is not None and self.sequences != type(self).model_fields["sequences"].default:
            raise ValueError(
                "sequences belongs to metric heldout_loss; evaluation.limit says how many items are scored"
            )
        return self

    @property
    def watched(self) -> str:
        """The domain or the benchmark that is measured."""
        return self.benchmark or self.domain or ""

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
