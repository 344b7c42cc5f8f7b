"""``realised``: what a run's adaptive stages came to, as a fixed curriculum that trains the same weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from davinci.commands.names import RunName, find_run
from davinci.commands.output import print_json
from davinci.config import Curriculum, Node, parse
from davinci.errors import UserError
from davinci.planning.plan import Plan, load_plan
from davinci.realised import Decisions, read_decisions
from davinci.store import Store, write_text


def run(options: argparse.Namespace, store: Store) -> int:
    name = find_run(store, options.run)
    output = Path(options.output) if options.output else None
    found = realised(store, name, output.stem if output else f"realised_{name.id}")
    if options.json:
        print_json(found)
        return 0
    text = _text(found, name)
    if output is None:
        sys.stdout.write(text)
    else:
        write_text(output, text)
        print(f"wrote {output}; as conf/curriculum/{output.name} it is curriculum={output.stem}")
    return 0


def realised(store: Store, name: RunName, called: str) -> dict[str, Any]:
    """The curriculum of a run, with what its adaptive stages decided fixed, as plain data.

    Raises:
        UserError: no stage of the run is adaptive, or one that is has not been trained to its end.
    """
    plan = load_plan(store, name.sweep)
    planned = next(run for run in plan.runs if run.id == name.id)
    curriculum = plan.config(planned).curriculum
    if not any(stage.is_adaptive for stage in curriculum.stages.values()):
        raise UserError(f"run {name.id}: no stage of curriculum {curriculum.name} decides anything as it trains")
    stages = {}
    for stage_name, stage in curriculum.stages.items():
        fixed = stage.model_dump(mode="json", exclude_defaults=True)
        if stage.is_adaptive:
            node = [plan.nodes[node] for node in planned.nodes if plan.nodes[node].stage_name == stage_name][-1]
            fixed |= _fixed(node, _decisions(store, plan, node))
            fixed.pop("until", None)
            fixed.pop("adapt", None)
        stages[stage_name] = fixed
    found = {"name": called, "stages": stages}
    parse(Curriculum, found, lambda key: f"run {name.id}")
    return found


def _decisions(store: Store, plan: Plan, node: Node) -> Decisions:
    decisions = read_decisions(store, node.id)
    if decisions is None or not (store.node(node.id) / "done.json").is_file():
        raise UserError(
            f"node {node.id}: stage {node.stage_name} is not trained to its end, so it is not decided yet; run: "
            f"python -m davinci retry {plan.sweep}"
        )
    return decisions


def _fixed(node: Node, decisions: Decisions) -> dict[str, Any]:
    """What differs in the stage once it is fixed."""
    own = {name: float(use.weight) for name, use in node.sources.items()}
    changes: dict[str, Any] = {} if decisions.ended is None else {"tokens": decisions.ended}
    if decisions.moves:
        changes["mixtures"] = [
            {"from_tokens": move.tokens, "mixture": {"domains": move.domains, "sources": dict(own)}}
            for move in decisions.moves
        ]
    return changes


def _text(found: dict[str, Any], name: RunName) -> str:
    what = f"# What run {name.id} of sweep {name.sweep} decided as it trained, fixed: it trains the same weights.\n"
    return what + yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)
