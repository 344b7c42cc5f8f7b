"""Held-out losses by checkpoint, as the rows that a table's columns are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.load import Sweep
from davinci.planning.heldout_metrics import HeldOutMetric


class Losses:
    """The held-out losses of a sweep's evaluated states.

    Attributes:
        domains: those that were measured, or where nothing was yet those of the baseline arm's pool.
    """

    def __init__(self, sweep: Sweep) -> None:
        measured = sweep.heldout
        columns = (measured[name] for name in ("node", "tokens", "averaged", "domain", "loss", "bits_per_byte"))
        self._values: dict[tuple[str, int, bool, str], dict[str, float]] = {
            (node, int(tokens), bool(averaged), domain): {"loss": float(loss), "bits_per_byte": float(bits)}
            for node, tokens, averaged, domain, loss, bits in zip(*columns, strict=True)
        }
        self._points = {(run.id, point.tokens): point for run in sweep.plan.runs for point in run.points}
        pool = next(arm.config.pool for arm in sweep.plan.arms if arm.is_baseline)
        self.domains = sorted({domain for *_, domain in self._values}) or pool.domains

    def row(self, asked: Any, metric: HeldOutMetric) -> Any:
        """A row of the tidy frame for `metric` at the state of the row `asked`; its sign is turned, so that more is
        better (`analysis.units`). `missing` says why there is no number."""
        point = self._points.get((asked.run, asked.tokens))
        averaged = point is not None and point.weights == "average"
        found = self._values.get((asked.node, asked.tokens, averaged, metric.domain or ""))
        value = np.nan if found is None else found[metric.value]
        missing = ""
        if point is not None and len(point.states) > 1:
            missing = "held-out losses are not measured of averages over checkpoints"
        elif found is None:
            missing = "the held-out loss was not measured at this point"
        elif np.isnan(value):
            missing = "the recorded held-out loss is not a number"
        return asked._replace(
            benchmark=metric.name,
            domain=metric.domain or "",
            protocol="",
            metric=metric.value,
            score=np.nan if missing else -value,
            items=0,
            chance=np.nan,
            key="",
            missing=missing,
        )
