"""The state of a sweep's runs, read from the store alone: any host, any time, whoever runs it."""

from __future__ import annotations

from typing import Literal

from davinci.config import Frozen
from davinci.launching.job import failure_path, log_path
from davinci.launching.lock import holder
from davinci.launching.reconcile import plan_remaining
from davinci.planning.plan import Plan
from davinci.store import Store, read_json


class RunState(Frozen):
    """One run as the store shows it. `at` is the stage being worked on, or that failed; `tokens` counts those done."""

    id: str
    arm: str
    seed: int
    state: Literal["done", "running", "failed", "waiting"]
    tokens: int
    total_tokens: int
    at: str | None = None
    error: str | None = None
    log: str | None = None


def run_states(plan: Plan, store: Store) -> list[RunState]:
    """The state of every run of the plan, in its order."""
    left = plan_remaining(plan, store)
    chain_of = {node: chain.name for chain in plan.chains() for node in chain.nodes}
    states = []
    for run in plan.runs:
        open_nodes = [node for node in run.nodes if not left[node].finished]
        held = [node for node in open_nodes if holder(store.node(node)) is not None]
        failures = [chain_of[node] for node in open_nodes if failure_path(store, plan.sweep, chain_of[node]).is_file()]
        state: Literal["done", "running", "failed", "waiting"] = "waiting"
        at = error = log = None
        if not open_nodes:
            state = "done"
        elif held:
            state, at = "running", held[0]
        elif failures:
            state = "failed"
            at = next(node for node in open_nodes if chain_of[node] == failures[0])
            error = read_json(failure_path(store, plan.sweep, failures[0]))["error"]
        if at is not None:
            log = str(log_path(store, plan.sweep, chain_of[at]))
        states.append(
            RunState(
                id=run.id,
                arm=run.arm,
                seed=run.seed,
                state=state,
                tokens=sum(left[node].start - plan.nodes[node].begin for node in run.nodes),
                total_tokens=plan.nodes[run.nodes[-1]].end,
                at=plan.nodes[at].stage_name if at else None,
                error=error,
                log=log,
            )
        )
    return states
