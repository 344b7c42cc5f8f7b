"""What a plan asks of its nodes: evaluations, each of a state on a suite. Runs of one plan may differ in suite."""

from __future__ import annotations

from typing import Literal

from davinci.config import Evaluation, Frozen, Positive
from davinci.evaluation.probe_key import set_key
from davinci.planning.plan import Plan, State


class Demand(Frozen):
    """An evaluation of a node's state at `tokens` (since initialisation) on the suite `suite`.

    `weights` and `states` as in `plan.Point`; `suite` is the key of a suite as records name it (`Point.asks`).
    """

    tokens: Positive
    suite: str
    weights: Literal["trained", "average"] = "trained"
    states: tuple[State, ...] = ()


def demanded(plan: Plan) -> dict[str, tuple[Demand, ...]]:
    """What is asked of each node that anything is asked of, in order of tokens."""
    keys = {arm.label: arm.config.evaluation.key for arm in plan.arms}
    asked: dict[str, dict[tuple[int, str], Demand]] = {}
    for run in plan.runs:
        for point in run.points:
            demand = Demand(
                tokens=point.tokens, suite=point.asks(keys[run.arm]), weights=point.weights, states=point.states
            )
            asked.setdefault(point.node, {})[demand.tokens, demand.suite] = demand
    return {node: tuple(found[key] for key in sorted(found)) for node, found in asked.items()}


class Probing(Frozen):
    """Probes of a node: the items of the set `key`, whenever a step passes a multiple of `every_tokens`."""

    key: str
    every_tokens: Positive


def probed(plan: Plan) -> dict[str, tuple[Probing, ...]]:
    """What probes are asked of each node that any are asked of: nodes are shared, and so are their probes."""
    settings = {
        arm.label: (set_key(arm.config.evaluation.probes), arm.config.evaluation.probes.every_tokens)
        for arm in plan.arms
        if arm.config.evaluation.probes is not None
    }
    asked: dict[str, set[tuple[str, int]]] = {}
    for run in plan.runs:
        if run.arm in settings:
            for node in run.nodes:
                asked.setdefault(node, set()).add(settings[run.arm])
    return {
        node: tuple(Probing(key=key, every_tokens=every) for key, every in sorted(found))
        for node, found in asked.items()
    }


def suites(plan: Plan) -> dict[str, Evaluation]:
    """The plan's suites by their names in demands and by their keys; `at`, which says when and not what, is left
    empty."""
    found: dict[str, Evaluation] = {}
    by_arm: dict[str, Evaluation] = {}
    for arm in plan.arms:
        key = arm.config.evaluation.key
        if key not in found:
            found[key] = arm.config.evaluation.model_copy(update={"at": ()})
        by_arm[arm.label] = found[key]
    keys = {label: suite.key for label, suite in by_arm.items()}
    for run in plan.runs:
        found |= {point.asks(keys[run.arm]): by_arm[run.arm] for point in run.points}
    return found


def heldout_sequences(plan: Plan) -> int:
    """Sequences a domain of the held-out loss: the most that any run asks for, since nodes are shared."""
    return max(arm.config.evaluation.heldout_sequences for arm in plan.arms)
