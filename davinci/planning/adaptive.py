"""What a plan says of stages that decide something as they train."""

from __future__ import annotations

from collections.abc import Callable

from davinci.config import Adapt, Stage, Until
from davinci.planning.sweep import Sweep
from davinci.planning.wording import some, tokens


def notes(sweep: Sweep) -> list[str]:
    """What is known before only at its most, or only to begin with: a line for arms that agree."""
    return [
        *(
            f"{who}: {what}; tokens, FLOPs, cost and epochs are at most, and budgets are compared at their maximum"
            for who, what in _of_arms(sweep, _end)
        ),
        *(f"{who}: {what}; epochs are those of the mixture it starts from" for who, what in _of_arms(sweep, _mixture)),
    ]


def _of_arms(sweep: Sweep, said: Callable[[str, Stage], str | None]) -> list[tuple[str, str]]:
    """``(arms, what is said of their stages)``, for arms of which anything is."""
    groups: dict[str, list[str]] = {}
    for arm in sweep.arms:
        texts = [text for name, stage in arm.config.curriculum.stages.items() if (text := said(name, stage))]
        if texts:
            groups.setdefault("; ".join(texts), []).append(arm.label)
    return [("every arm" if len(arms) == len(sweep.arms) else some(arms), text) for text, arms in groups.items()]


def _end(name: str, stage: Stage) -> str | None:
    until = stage.until
    if not isinstance(until, Until):
        return None
    loss = f"{until.metric} of {until.domain} falls"
    moves = loss if until.benchmark is None else f"the score of {until.benchmark} rises"
    return (
        f"{name} ends after at most {tokens(stage.tokens)} tokens, or when {moves} by less than {until.min_slope:g} "
        f"per {tokens(until.check_every)} tokens"
    )


def _mixture(name: str, stage: Stage) -> str | None:
    adapt = stage.adapt
    if not isinstance(adapt, Adapt):
        return None
    return f"every {tokens(adapt.every)} tokens the mixture of {name} moves toward domains still learning"
