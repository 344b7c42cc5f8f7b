"""Which arms of a sweep repeat another: equal config, other random streams."""

from __future__ import annotations

from davinci.planning.plan import Plan
from davinci.planning.sweep import Arm

# What does not change what is trained or asked.
_LABELS = {"arm", "replicate", "cluster", "tracking"}


def repeats(plan: Plan) -> dict[str, str]:
    """Label of each arm that repeats an earlier one, and that one's label."""
    first: dict[str, Arm] = {}
    found: dict[str, str] = {}
    for arm in plan.arms:
        original = first.setdefault(arm.config.model_dump_json(exclude=_LABELS), arm)
        if original.config.replicate != arm.config.replicate:
            found[arm.label] = original.label
    return found
