"""What a plan's nodes lack, at a glance: for commands that show it or ask only what is finished.

Exact about what is finished. Of a node that was never marked done no row is read but the last ones, so that a thousand
runs in the middle of their way cost no more than a thousand finished ones; how far it is follows from its checkpoints.
Launching looks closely (`reconcile`).
"""

from __future__ import annotations

from collections.abc import Sequence

from davinci.config import Node
from davinci.launching.demands import demanded, probed, suites
from davinci.launching.forecast import tail
from davinci.launching.reconcile import (
    Asked,
    Remaining,
    Settings,
    asked_of,
    checkpoints,
    done_mark,
    looks_whole,
    remaining,
    vouches,
)
from davinci.planning.plan import Plan
from davinci.store import Store


def glance(plan: Plan, store: Store) -> dict[str, Remaining]:
    """What every node of the plan still lacks, by node id."""
    demands, known, probing = demanded(plan), suites(plan), probed(plan)
    settings: Settings = {}
    left = {}
    for node in plan.nodes.values():
        asked = asked_of(node, demands.get(node.id, ()), known, store, settings)
        mark = done_mark(node.id, store)
        if mark is None:
            left[node.id] = _unmarked(node, asked, store)
        elif vouches(mark, node, asked, store, probes := probing.get(node.id, ())):
            left[node.id] = Remaining(
                train=False, discard=(), start=node.end, evaluations=(), marked=True, spikes=mark.get("spikes", 0)
            )
        else:
            left[node.id] = remaining(node, asked, store, probing=probes)
    return left


def _unmarked(node: Node, asked: Sequence[Asked], store: Store) -> Remaining:
    there = [tokens for tokens in checkpoints(node.id, store) if node.begin < tokens <= node.end]
    start = next((one for one in reversed(there) if looks_whole(store.checkpoint(node.id, one))), node.begin)
    # Nothing is evaluated before all is trained.
    evaluated = tail(store.records(node.id)).evaluated if start == node.end and asked else frozenset()
    return Remaining(
        train=start < node.end,
        discard=(),
        start=start,
        evaluations=tuple(one.demand for one in asked if (one.demand.tokens, one.demand.suite) not in evaluated),
        marked=False,
    )
