"""What a plan asks of its nodes: evaluations, each of a state on a suite. Runs of one plan may differ in suite."""

from __future__ import annotations

from davinci.config import Evaluation, Frozen, Positive
from davinci.planning.plan import Plan


class Demand(Frozen):
    """An evaluation of a node's state at `tokens` (since initialisation) on the suite with key `suite`."""

    tokens: Positive
    suite: str


def demanded(plan: Plan) -> dict[str, tuple[Demand, ...]]:
    """What is asked of each node that anything is asked of, in order of tokens."""
    suites = {arm.label: arm.config.evaluation.key for arm in plan.arms}
    asked: dict[str, set[tuple[int, str]]] = {}
    for run in plan.runs:
        for point in run.points:
            asked.setdefault(point.node, set()).add((point.tokens, suites[run.arm]))
    return {
        node: tuple(Demand(tokens=tokens, suite=suite) for tokens, suite in sorted(found))
        for node, found in asked.items()
    }


def suites(plan: Plan) -> dict[str, Evaluation]:
    """The plan's suites by key; `at`, which says when and not what, is left empty."""
    found: dict[str, Evaluation] = {}
    for arm in plan.arms:
        key = arm.config.evaluation.key
        if key not in found:
            found[key] = arm.config.evaluation.model_copy(update={"at": ()})
    return found


def heldout_sequences(plan: Plan) -> int:
    """Sequences a domain of the held-out loss: the most that any run asks for, since nodes are shared."""
    return max(arm.config.evaluation.heldout_sequences for arm in plan.arms)
