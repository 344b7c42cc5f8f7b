"""The rules of adaptive curricula, as functions of what was measured. Plain Python, and sums are exactly rounded, so
that the same checks give the same decision on every machine.

A check is made once a stage has seen t tokens; its value y is lower for better (a benchmark's score with its sign
turned). Over the last w checks the slope is the
least-squares one, in y per `every` tokens and counted as improvement::

    s = - every * sum((t - mean t) * (y - mean y)) / sum((t - mean t) ** 2)

- **Plateau** (`Until`): the stage ends at the first check with w checks made, t >= min_tokens and s < min_slope.
- **Mixture** (`Adapt`): with p the stage's own proportions and s+ = max(s, 0) of each domain, domain d is weighed
  q[d] = p[d] * clip((s+[d] / mean) ** strength, 1 / bound, bound), where mean = sum(p * s+). New proportions are
  q / sum(q), in whole parts of `GRAIN`. Where no domain improves they are the stage's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from davinci.config import Adapt, Until

# Proportions of a moved mixture are whole parts of this many (0.01%): to be read, and above the noise of the slopes.
GRAIN = 10_000

# (tokens into the stage, what was measured there)
Measured = tuple[int, float]


def slope(checks: Sequence[Measured], window: int, every: int) -> float | None:
    """Improvement per `every` tokens over the last `window` checks; None where there are fewer."""
    if len(checks) < window:
        return None
    last = checks[-window:]
    place = math.fsum(tokens for tokens, _ in last) / window
    level = math.fsum(value for _, value in last) / window
    spread = math.fsum((tokens - place) ** 2 for tokens, _ in last)
    return -every * math.fsum((tokens - place) * (value - level) for tokens, value in last) / spread


def ends(until: Until, checks: Sequence[Measured]) -> bool:
    """Whether the stage ends at the last of `checks`."""
    found = slope(checks, until.window, until.check_every)
    return found is not None and checks[-1][0] >= until.min_tokens and found < until.min_slope


def moved(
    adapt: Adapt, own: Mapping[str, float], checks: Sequence[tuple[int, Mapping[str, float]]]
) -> dict[str, float] | None:
    """The proportions from the last of `checks` on; None before `window` checks.

    Args:
        adapt: the rule.
        own: the stage's own proportions; one of 0 stays.
        checks: tokens into the stage, and the loss of every domain with a positive proportion.
    """
    if len(checks) < adapt.window:
        return None
    slopes = {
        domain: max(0.0, slope([(tokens, losses[domain]) for tokens, losses in checks], adapt.window, adapt.every) or 0)
        for domain, share in own.items()
        if share > 0
    }
    mean = math.fsum(own[domain] * one for domain, one in slopes.items())
    if not mean:
        return dict(own)
    weights = {
        domain: own[domain] * min(adapt.bound, max(1 / adapt.bound, (one / mean) ** adapt.strength))
        for domain, one in slopes.items()
    }
    return dict.fromkeys(own, 0.0) | _in_grains(weights)


def is_due(before: int, after: int, every: int) -> bool:
    """Whether a step from `before` to `after` tokens into the stage reaches a multiple of `every`."""
    return before // every < after // every


def _in_grains(weights: Mapping[str, float]) -> dict[str, float]:
    """`weights` as proportions of whole grains, at least one each, that sum to all of them: largest remainders first,
    equal ones by name."""
    total = math.fsum(weights.values())
    exact = {name: GRAIN * weight / total for name, weight in weights.items()}
    parts = {name: max(1, math.floor(one)) for name, one in exact.items()}
    left = GRAIN - sum(parts.values())
    by_remainder = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in by_remainder[: max(0, left)]:
        parts[name] += 1
    for _ in range(-left):  # a domain of next to nothing was lifted to a grain
        parts[max(parts, key=lambda name: (parts[name], name))] -= 1
    return {name: part / GRAIN for name, part in parts.items()}
