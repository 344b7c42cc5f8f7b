"""Held-out losses as metrics of a sweep: what a table's columns and a hypothesis may be about beside benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# What a held-out row of the records holds, and its unit. Less is better of both.
UNITS = {"loss": "nats a token", "bits_per_byte": "bits a byte"}
_PREFIX = "heldout_"


@dataclass(frozen=True)
class HeldOutMetric:
    """`value` of the held-out text of `domain`; without one the mean over the domains, each weighing the same."""

    value: str
    domain: str | None = None

    @property
    def name(self) -> str:
        """``heldout_loss``, ``heldout_bits_per_byte/code``."""
        return f"{_PREFIX}{self.value}" + (f"/{self.domain}" if self.domain else "")

    @property
    def unit(self) -> str:
        return UNITS[self.value]


def heldout_metric(name: str) -> HeldOutMetric | None:
    """The metric of that name, whose letters may be of either case; None where it names no held-out loss."""
    head, slash, domain = name.partition("/")
    value = head.lower().removeprefix(_PREFIX)
    if value not in UNITS or head.lower() == value or bool(slash) != bool(domain):
        return None
    return HeldOutMetric(value, domain or None)


def heldout_metrics(domains: Iterable[str]) -> list[str]:
    """Names of all held-out metrics of a pool with these domains."""
    return [HeldOutMetric(value, domain).name for value in UNITS for domain in (None, *domains)]
