"""From proportions to the integer weights that a mixture's order is made of. Plain Python, the same bits everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby

from davinci.config import SourceUse

# Weights are whole parts of this many: fine enough for a source of 0.0001% of a mixture.
PARTS = 10**9


def integer_weights(domains: Mapping[str, float], shares: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """Weight of every source, in name order, divided by their common divisor.

    Args:
        domains: proportion of each domain; one of 0 has no weights.
        shares: domain -> source -> relative weight inside the domain, positive.
    """
    parts: dict[str, int] = {}
    for domain, proportion in domains.items():
        if proportion > 0:
            total = math.fsum(shares[domain].values())
            for name, share in shares[domain].items():
                parts[name] = max(1, round(PARTS * proportion * share / total))
    divisor = math.gcd(*parts.values())
    return {name: parts[name] // divisor for name in sorted(parts)}


def source_shares(sources: Mapping[str, SourceUse]) -> dict[str, dict[str, float]]:
    """Relative weights of the sources inside each domain, as `integer_weights` takes them."""
    pairs = sorted((use.domain, name) for name, use in sources.items())
    return {
        domain: {name: float(sources[name].weight) for _, name in own}
        for domain, own in groupby(pairs, key=lambda pair: pair[0])
    }
