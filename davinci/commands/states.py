"""What --checkpoint means: states of runs that are on the disk."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from davinci.errors import UserError
from davinci.launching.reconcile import checkpoints, looks_whole
from davinci.planning.identity import human_tokens
from davinci.planning.plan import Plan, PlannedRun, State
from davinci.planning.wording import some
from davinci.store import Store

Weights = Literal["trained", "average"]


def on_disk(plan: Plan, run: PlannedRun, store: Store, weights: Weights = "trained") -> list[State]:
    """The states of a run whose checkpoints are there, and hold such weights, in order of tokens."""
    return [
        State(node=name, tokens=tokens)
        for name in run.nodes
        for tokens in checkpoints(name, store)
        if plan.nodes[name].begin < tokens <= plan.nodes[name].end and _holds(store.checkpoint(name, tokens), weights)
    ]


def _holds(checkpoint: Path, weights: Weights) -> bool:
    return looks_whole(checkpoint) and (weights == "trained" or (checkpoint / "average.safetensors").is_file())


def chosen(plan: Plan, run: PlannedRun, store: Store, words: str, weights: Weights = "trained") -> list[State]:
    """Those that `words` names: ``all``, ``last``, or tokens since initialisation separated by commas.

    Tokens are whole numbers, or as commands print them (``341k``).

    Raises:
        UserError: there is no such checkpoint; says which there are.
    """
    there = on_disk(plan, run, store, weights)
    if not there and weights == "average" and on_disk(plan, run, store):
        raise UserError(
            f"--weights average: no checkpoint of run {run.id} has averaged weights; a stage keeps them where "
            "curriculum.stages.NAME.averages says so"
        )
    if not there:
        raise UserError(f"run {run.id} has no checkpoint yet; python -m davinci status {plan.sweep}")
    if words == "all":
        return there
    if words == "last":
        return there[-1:]
    found = []
    for word in words.split(","):
        same = [state for state in there if _says(word.strip(), state.tokens)]
        if len(same) > 1:
            exact = some([str(state.tokens) for state in same])
            raise UserError(f"--checkpoint {word}: run {run.id} has several there: {exact}")
        if not same:
            raise UserError(f"--checkpoint {word}: {_absent(word.strip(), plan, run)}; those there: {_listed(there)}")
        found += same
    return sorted(set(found), key=lambda state: state.tokens)


def _says(word: str, tokens: int) -> bool:
    return word.replace("_", "") == str(tokens) or word.lower() == human_tokens(tokens).lower()


def _absent(word: str, plan: Plan, run: PlannedRun) -> str:
    """Why a state is not there."""
    if not re.fullmatch(r"[\d_.]+[kmbt]?", word.lower()):
        return "accepted are all, last, and tokens such as 341248 or 341k, separated by commas"
    was = any(_says(word, point.tokens) for point in run.points)
    return f"run {run.id} has no checkpoint there" + (
        " any more, or not yet (pruned, or still to be trained)" if was else ""
    )


def _listed(states: Iterable[State]) -> str:
    return ", ".join(str(state.tokens) for state in states)
