"""Forks at a point that was passed before: a node takes over what others of the same history left behind it.

A plan may cut a stretch of training that the store holds whole: [0, 6T) is done, and now an arm parts at 4T. The state
at 4T lies on the way to that at 6T, so a checkpoint at 3T in the folder of the latter belongs to the new node [0, 4T)
just as well. Training then goes on from there instead of from the start.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from davinci.config import Node, parse
from davinci.errors import UserError
from davinci.launching.reconcile import checkpoints, looks_whole
from davinci.planning.identity import history_of_nodes, state_id
from davinci.planning.plan import Plan
from davinci.store import Store, link, read_json
from davinci.tracking.records import Writer, read


def donors(plan: Plan, store: Store) -> dict[str, tuple[str, ...]]:
    """For every node of the plan that the folders of its descendants hold checkpoints of: those descendants."""
    found: dict[str, list[str]] = {}
    for donor in plan.nodes.values():
        early = [tokens for tokens in checkpoints(donor.id, store) if tokens <= donor.begin]
        node = donor
        while early and node.parent is not None and early[0] <= node.begin:
            node = plan.nodes[node.parent]
            if any(node.begin < tokens <= node.end for tokens in early):
                found.setdefault(node.id, []).append(donor.id)
    return {node: tuple(names) for node, names in found.items()}


def take_over(node: Node, donors: Sequence[str], due: Collection[int], attempt: int, store: Store) -> None:
    """Bring into the node's folder what `donors` hold of it: the checkpoints that are `due`, the newest one before the
    first of those that is not there, and the records up to them. The caller holds the node's lock.

    A donor whose stored history does not lead through `node` is left alone: then the node is trained.
    """
    own = {tokens for tokens in checkpoints(node.id, store) if looks_whole(store.checkpoint(node.id, tokens))}
    for donor in donors:
        if not _leads_through(node, donor, store):
            print(f"{donor} holds checkpoints of {node.id}, but its stored history is another: not used", flush=True)
            continue
        rows = [row for row in read(store.records(donor)) if node.begin < row["tokens"] <= node.end]
        measured = {row["tokens"] for row in rows if row["kind"] == "heldout"}
        there = [one for one in checkpoints(donor, store) if node.begin < one <= node.end and one not in own]
        for tokens in there:
            if tokens in due and tokens in measured and _copy(node, donor, tokens, False, rows, attempt, store):
                own.add(tokens)
        first = min((tokens for tokens in due if tokens not in own), default=node.begin)
        reached = max((tokens for tokens in own if tokens < first), default=node.begin)
        for tokens in reversed(there):
            if reached < tokens < first and _copy(node, donor, tokens, True, rows, attempt, store):
                own.add(tokens)
                break


def _leads_through(node: Node, donor: str, store: Store) -> bool:
    """Whether the donor's history, as its folder and those of its ancestors state it, passes through `node`."""
    chain: list[Node] = []
    name: str | None = donor
    try:
        while name is not None:
            chain.insert(0, parse(Node, read_json(store.node(name) / "node.json")))
            name = chain[0].parent
    except (OSError, UserError):
        return False
    history = history_of_nodes(chain)
    return state_id(history, chain[-1].end) == donor and state_id(history, node.end) == node.id


def _copy(
    node: Node, donor: str, tokens: int, rolling: bool, rows: Sequence[dict[str, Any]], attempt: int, store: Store
) -> bool:
    """Copy one checkpoint, and first the records up to it, which it promises; returns whether it was whole."""
    from davinci.training.checkpoints import copy

    with Writer(store.records(node.id), attempt) as writer:
        for row in rows:
            if row["tokens"] > tokens:
                break
            if row["kind"] == "evaluation" and not _link_items(store.node(donor), store.node(node.id), row):
                continue
            rest = {name: value for name, value in row.items() if name not in ("kind", "attempt", "tokens", "step")}
            writer.write(row["kind"], row["tokens"], row["step"], **rest)
    target = store.checkpoint(node.id, tokens)
    shutil.rmtree(target, ignore_errors=True)  # only a damaged one can be there
    if not copy(store.checkpoint(donor, tokens), target, node=node.id, rolling=rolling):
        return False
    print(f"took over the checkpoint at {tokens} tokens from {donor}", flush=True)
    return True


def _link_items(source: Path, target: Path, row: dict[str, Any]) -> bool:
    name = Path(str(row["items_file"])).name
    if not (source / "evaluations" / name).is_file():
        return False
    (target / "evaluations").mkdir(parents=True, exist_ok=True)
    if not (target / "evaluations" / name).exists():
        link(source / "evaluations" / name, target / "evaluations" / name)
    return True
