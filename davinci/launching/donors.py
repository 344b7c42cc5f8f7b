"""States that were passed before: a node takes over what other nodes of the store left behind on the same way.

[0, 6T) is done, and now an arm parts at 4T, or an arm is asked for that stops at 5T, or one that goes on to 8T: a
checkpoint at 3T in the folder of the first is a state of all of them. What makes it one is its id, the hash of the
history up to 3T. Training then goes on from there instead of from the beginning of the node.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from davinci.config import Frozen, Node, Positive, parse
from davinci.errors import UserError
from davinci.launching.reconcile import checkpoints, looks_whole
from davinci.planning.identity import History, history_of_nodes, state_id
from davinci.planning.plan import Plan
from davinci.store import Store, link, read_json
from davinci.tracking.records import Writer, read


class Donor(Frozen):
    """Checkpoints in the folder of `node`, by tokens since initialisation, that are states of another node too."""

    node: str
    tokens: tuple[Positive, ...]


def donors(plan: Plan, names: Iterable[str], store: Store) -> dict[str, tuple[Donor, ...]]:
    """For those of the named nodes that the store does not hold whole: who in the store holds states of theirs."""
    wanted = [plan.nodes[name] for name in names if not looks_whole(store.checkpoint(name, plan.nodes[name].end))]
    held = _states(store, min((node.begin for node in wanted), default=0)) if wanted else {}
    places = sorted(held)
    found = {}
    for node in wanted:
        within = places[bisect_right(places, node.begin) : bisect_right(places, node.end)]
        if not within:
            continue
        history = history_of_nodes(_ancestry(plan, node))
        given: dict[str, list[int]] = {}
        for tokens in within:
            for donor in held[tokens].get(state_id(history, tokens), ()):
                if donor != node.id:
                    given.setdefault(donor, []).append(tokens)
        if given:
            found[node.id] = tuple(Donor(node=donor, tokens=tuple(given[donor])) for donor in given)
    return found


def take_over(node: Node, donors: Sequence[Donor], due: Collection[int], attempt: int, store: Store) -> None:
    """Bring into the node's folder what `donors` hold of it: the checkpoints that are `due`, the newest one before the
    first of those that is not there, and the records up to them. The caller holds the node's lock.
    """
    own = {tokens for tokens in checkpoints(node.id, store) if looks_whole(store.checkpoint(node.id, tokens))}
    for donor in donors:
        there = [tokens for tokens in donor.tokens if tokens not in own]
        rows = list(_rows(node, donor.node, store)) if there else []
        measured = {row["tokens"] for _, row in rows if row["kind"] == "heldout"}
        for tokens in there:
            if tokens in due and tokens in measured and _copy(node, donor.node, tokens, False, rows, attempt, store):
                own.add(tokens)
        first = min((tokens for tokens in due if tokens not in own), default=node.begin)
        reached = max((tokens for tokens in own if tokens < first), default=node.begin)
        for tokens in reversed(there):
            if reached < tokens < first and _copy(node, donor.node, tokens, True, rows, attempt, store):
                own.add(tokens)
                break


def _states(store: Store, above: int) -> dict[int, dict[str, list[str]]]:
    """Who holds a checkpoint: nodes by tokens (more than `above`) and state id."""
    held: dict[int, dict[str, list[str]]] = {}
    folder = store.root / "nodes"
    known = lru_cache(maxsize=None)(lambda name: _stored(store, name))
    for name in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ():
        there = checkpoints(name, store)
        there = there[bisect_right(there, above) :]
        chain = _chain(name, known) if there else None
        if chain is None:
            continue
        history: History = history_of_nodes(chain)
        if state_id(history, chain[-1].end) != name:
            continue  # Its folder is not what its name says: planning refuses it where it matters.
        for tokens in there[: bisect_left(there, chain[-1].end + 1)]:
            held.setdefault(tokens, {}).setdefault(state_id(history, tokens), []).append(name)
    return held


def _stored(store: Store, name: str) -> Node | None:
    try:
        return parse(Node, read_json(store.node(name) / "node.json"))
    except (OSError, UserError):
        return None


def _chain(name: str | None, known: Any) -> list[Node] | None:
    """A stored node after its stored ancestors; None where one is missing or cannot be read."""
    found: list[Node] = []
    while name is not None:
        node = known(name)
        if node is None:
            return None
        found.append(node)
        name = node.parent
    return found[::-1]


def _ancestry(plan: Plan, node: Node) -> list[Node]:
    found = [node]
    while (parent := found[-1].parent) is not None:
        found.append(plan.nodes[parent])
    return found[::-1]


def _rows(node: Node, donor: str, store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of the node's range, in order of tokens, with whose they are: the donor may itself be cut into several."""
    for one in _chain(donor, lambda name: _stored(store, name)) or ():
        if one.end > node.begin:
            for row in read(store.records(one.id)):
                if max(node.begin, one.begin) < row["tokens"] <= min(node.end, one.end):
                    yield one.id, row


def _copy(
    node: Node,
    donor: str,
    tokens: int,
    rolling: bool,
    rows: Sequence[tuple[str, dict[str, Any]]],
    attempt: int,
    store: Store,
) -> bool:
    """Copy one checkpoint, and first the records up to it, which it promises; returns whether it was whole."""
    from davinci.training.checkpoints import copy

    with Writer(store.records(node.id), attempt) as writer:
        for owner, row in rows:
            if row["tokens"] > tokens:
                break
            if row["kind"] == "evaluation" and not _link_items(store.node(owner), store.node(node.id), row):
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
