"""What a comparison of two arms over few seeds can tell apart from noise.

The test is the paired t-test over S seeds, two-sided at 5%, with S - 1 degrees of freedom; d is the true difference,
s the standard deviation of a paired difference from seed to seed. Its power is the chance that T exceeds t(0.975) on
the side of d, where T follows the noncentral t distribution with S - 1 degrees of freedom and noncentrality
d sqrt(S) / s (Cohen 1988, Statistical Power Analysis, 2nd ed., section 2.3; Owen 1965, Biometrika 52:437). Finding the
opposite sign is no success, and at 80% power next to impossible.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

LEVEL = 0.95
POWER = 0.80

# Beyond this many seeds nobody trains; differences that need more are said to need this many.
MOST_SEEDS = 1_000_000


def power(noncentrality: float, dof: float) -> float:
    """Chance that the test finds a difference of `noncentrality` standard errors."""
    from scipy.special import nctdtr, stdtrit  # 0.3 s, which most plans need not wait for

    return 1.0 - float(nctdtr(dof, noncentrality, stdtrit(dof, (1 + LEVEL) / 2)))


@lru_cache(maxsize=4096)
def detectable_errors(dof: float) -> float:
    """The smallest true difference that is found with 80% power, in standard errors of the difference."""
    return float(detectable_errors_of(dof))


def detectable_errors_of(dof: Any) -> Any:
    """`detectable_errors` of every entry of an array, float64 of its shape; to 1e-5 of it from one degree of freedom
    on, to 1e-3 below."""
    from scipy.special import nctdtrinc, stdtrit

    return nctdtrinc(dof, 1 - POWER, stdtrit(dof, (1 + LEVEL) / 2))


def detectable(noise: float, seeds: int) -> float | None:
    """The smallest difference found with 80% power, in the unit of `noise`; None with fewer than two seeds."""
    return None if seeds < 2 else noise / math.sqrt(seeds) * detectable_errors(seeds - 1)


def seeds_needed(noise: float, difference: float) -> int:
    """The fewest seeds with which `difference` (above 0, in the unit of `noise`) is found with 80% power."""

    def suffices(seeds: int) -> bool:
        return noise / math.sqrt(seeds) * detectable_errors(seeds - 1) <= difference

    low, high = 1, 2  # one seed never does
    while not suffices(high):
        if high >= MOST_SEEDS:
            return MOST_SEEDS
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
