"""``retry``: launch what is left of a sweep or a run, with the plan it was launched with."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout

from davinci.commands.names import find
from davinci.commands.output import print_json
from davinci.launching.launch import launch
from davinci.launching.tasks import tasks
from davinci.planning.plan import Plan, load_plan
from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    """The launch's status: 1 if runs failed, 128 + n if stopped by signal n."""
    name = find(store, options.name)
    sweep, run = (name, None) if isinstance(name, str) else (name.sweep, name.id)
    plan = load_plan(store, sweep)
    only = None if run is None else _chains(plan, run)
    config = plan.arms[0].config
    if not options.json:
        return launch(plan, store, config.cluster, config.tracking, only)
    with redirect_stdout(sys.stderr):
        status = launch(plan, store, config.cluster, config.tracking, only)
    print_json({"sweep": sweep, "run": run, "cluster": config.cluster.kind, "status": status})
    return status


def _chains(plan: Plan, run: str) -> frozenset[str]:
    """The chains that a run passes through."""
    nodes = next(set(one.nodes) for one in plan.runs if one.id == run)
    return frozenset(chain.name for chain in tasks(plan) if nodes & set(chain.nodes))
