"""How fast this machine trains and evaluates a plan, measured by a few real steps."""

from __future__ import annotations

from davinci.config import Cluster
from davinci.planning.cost import Probe
from davinci.planning.plan import Plan
from davinci.store import Store


def measure(plan: Plan, store: Store, cluster: Cluster) -> Probe:
    """Measure what `planning.cost` needs."""
    raise NotImplementedError
