"""A plan's chains as jobs: where evaluation is separate, a chain is one that trains and one behind it that evaluates.

Both are a `Chain`; the second's name is that of the first with `EVALUATION` behind it, and it has the same nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from davinci.config import Cluster
from davinci.launching.reconcile import Remaining
from davinci.planning.plan import Chain, Plan

EVALUATION = ".evaluation"

# Where evaluation is separate, ``early`` evaluates states of a chain that still trains (see `early`).
Task = Literal["all", "train", "evaluate", "early"]


def tasks(plan: Plan) -> list[Chain]:
    """The plan's jobs, each after the one it waits for."""
    found = []
    evaluated = {point.node for run in plan.runs for point in run.points}
    places = node_clusters(plan)
    for chain in plan.chains():
        found.append(chain)
        if places[chain.name].evaluation == "separate" and not evaluated.isdisjoint(chain.nodes):
            found.append(Chain(name=chain.name + EVALUATION, nodes=chain.nodes, after=chain.name))
    return found


def node_clusters(plan: Plan) -> dict[str, Cluster]:
    """What each node is run with: what the first run through it says."""
    of_arm = {arm.label: arm.config.cluster for arm in plan.arms}
    found: dict[str, Cluster] = {}
    for run in plan.runs:
        for node in run.nodes:
            found.setdefault(node, of_arm[run.arm])
    return found


def node_of(task: str) -> str:
    """The last node of a task's chain, which that is named by."""
    return task.removesuffix(EVALUATION)


def kind(task: str, cluster: Cluster) -> Task:
    """What the task does."""
    if task.endswith(EVALUATION):
        return "evaluate"
    return "train" if cluster.evaluation == "separate" else "all"


def is_trained(left: Remaining) -> bool:
    """Whether a node lacks evaluations at most."""
    return left.marked and not left.train


def open_nodes(task: Chain, left: Mapping[str, Remaining], cluster: Cluster) -> list[str]:
    """The nodes of which the task has something left to do."""
    match kind(task.name, cluster):
        case "train":
            return [node for node in task.nodes if not is_trained(left[node])]
        case "evaluate":
            return [node for node in task.nodes if left[node].evaluations]
        case _:
            return [node for node in task.nodes if not left[node].finished]


def tasks_left(plan: Plan, left: Mapping[str, Remaining]) -> Sequence[Chain]:
    """The tasks with something left to do."""
    places = node_clusters(plan)
    return [task for task in tasks(plan) if open_nodes(task, left, places[node_of(task.name)])]
