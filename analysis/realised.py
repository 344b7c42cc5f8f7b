"""What a reader must know of stages that could end before their planned tokens."""

from __future__ import annotations

from davinci.planning.plan import Plan
from davinci.planning.wording import tokens
from davinci.realised import read_decisions
from davinci.store import Store


def realised_notes(plan: Plan, store: Store) -> list[str]:
    """A line for each arm and stage of which some seed is decided: where it ended, of at most how many tokens."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in plan.runs:
        last = {plan.nodes[node].stage_name: plan.nodes[node] for node in run.nodes}
        for name, node in last.items():
            if node.stage.until is None or not (store.node(node.id) / "done.json").is_file():
                continue
            decisions = read_decisions(store, node.id)
            if decisions is not None:
                most, ended = node.stage.grid.tokens_used, decisions.ended
                came_to = f"all of {tokens(most)}" if ended is None else f"{tokens(ended)} of at most {tokens(most)}"
                found.setdefault((run.arm, name), []).append(f"{came_to} (seed {run.seed})")
    return [
        f"{arm}: {name} ends on a plateau: it trained {', '.join(places)} tokens; points from there on keep their "
        "place in the plan, where fewer tokens were seen"
        for (arm, name), places in found.items()
    ]
