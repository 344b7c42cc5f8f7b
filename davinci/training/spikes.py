"""Spikes: steps whose loss or gradient norm stands far above those just before.

The rule: a step is a spike where its loss or its gradient norm (before clipping) is above

    median + DEVIATIONS x max(1.4826 MAD, FLOOR x median)

of the last `WINDOW` steps, of which at least `FEWEST` must have been seen. 1.4826 MAD (median absolute deviation)
estimates a normal's standard deviation, and unlike it does not grow with the spikes themselves (Hampel 1974, JASA
69:383). `LONGEST` spikes in a row are no spike but a new level, as after a change of mixture: the window starts anew.

A skipped spike moves neither weights nor moments; its data are passed over (as PaLM did by hand, arXiv 2204.02311,
section 5.1, and OLMo-core's SkipStepAdamW does by a rule on mean and deviation). The window is part of a checkpoint and
knows nothing of stages, so that what is skipped depends on neither interruptions nor on how training was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from davinci.config import Frozen

WINDOW, FEWEST = 128, 32
DEVIATIONS = 8.0
FLOOR = 0.01
LONGEST = 10


class Recent(Frozen):
    """Loss and gradient norm of the last steps, oldest first, and how many spikes in a row end them."""

    loss: tuple[float, ...] = ()
    grad_norm: tuple[float, ...] = ()
    spikes: int = 0


@dataclass(frozen=True)
class Spike:
    """A step's loss and gradient norm, and the limits, one of which it exceeded."""

    loss: float
    grad_norm: float
    loss_limit: float
    grad_norm_limit: float


@dataclass
class Detector:
    """Judges each step by those before it."""

    _loss: list[float] = field(default_factory=list)
    _norm: list[float] = field(default_factory=list)
    _spikes: int = 0

    @classmethod
    def of(cls, recent: Recent) -> Detector:
        """The detector that `recent` says."""
        return cls(list(recent.loss), list(recent.grad_norm), recent.spikes)

    @property
    def recent(self) -> Recent:
        """All it knows."""
        return Recent(loss=tuple(self._loss), grad_norm=tuple(self._norm), spikes=self._spikes)

    def see(self, loss: float, grad_norm: float) -> Spike | None:
        """Take in one step; the spike it is, if it is one."""
        found = None
        if len(self._loss) >= FEWEST:
            limits = limit(self._loss), limit(self._norm)
            if loss > limits[0] or grad_norm > limits[1]:
                found = Spike(loss, grad_norm, *limits)
        for kept, value in ((self._loss, loss), (self._norm, grad_norm)):
            kept.append(value)
            del kept[:-WINDOW]
        self._spikes = self._spikes + 1 if found else 0
        if self._spikes == LONGEST:
            del self._loss[:-LONGEST], self._norm[:-LONGEST]
            self._spikes = 0
        return found


def limit(values: Sequence[float]) -> float:
    """What a value must exceed to be a spike after `values`."""
    middle = _median(values)
    deviation = 1.4826 * _median([abs(value - middle) for value in values])
    return middle + DEVIATIONS * max(deviation, FLOOR * abs(middle))


def _median(values: Sequence[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
