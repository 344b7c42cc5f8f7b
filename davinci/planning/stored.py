"""What planning reads of the store: nodes that are known there, and what was launched last."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from davinci.config import Node, parse
from davinci.errors import UserError
from davinci.planning.identity import History, check, state_id
from davinci.planning.tree import Tree
from davinci.store import Store, read_json


class StoredNodes:
    """The nodes of a store as jobs froze them (node.json). Without a store there are none."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._read: dict[str, dict[str, Any] | None] = {}
        self._known = frozenset(_names(store.root / "nodes")) if store else frozenset[str]()

    def cut(self, tree: Tree, histories: Sequence[History]) -> None:
        """Cut runs where a node they would train whole was cut before, so that what was trained is not trained again.

        A node that is stored as beginning later than planned, after a parent that is what the run has there, is cut at
        that beginning; the first part may have been cut too, so that this goes on until nothing changes.
        """
        if not self._known:
            return
        settled: set[str] = set()
        for index, history in enumerate(histories):
            changed = True
            while changed:
                changed, begin = False, 0
                for state in tree.states(index):
                    if state.id not in settled:
                        settled.add(state.id)
                        later = self._later_begin(state.id, begin, history)
                        if later is not None:
                            tree.cut(index, later)
                            changed = True
                    begin = state.tokens

    def _later_begin(self, node: str, planned: int, history: History) -> int | None:
        """Where the stored node begins, if that is later than planned and the run has its parent's state there."""
        data = self.get(node) or {}
        begin, parent = data.get("begin"), data.get("parent")
        if type(begin) is not int or not planned < begin < history.end:
            return None
        return begin if state_id(history, begin) == parent else None

    def check(self, nodes: Mapping[str, Node]) -> None:
        """Refuse a stored node whose config does not give its id; one that says what is planned needs no look.

        Raises:
            UserError: naming its file and what differs.
        """
        for name in self._known & nodes.keys():
            data = self.get(name)
            if data is not None and data != nodes[name].model_dump(mode="json"):
                stored = self._chain(name)
                if stored is not None:
                    check(stored, _chain(nodes, name), str(self._file(name)))

    def get(self, node: str) -> dict[str, Any] | None:
        """The stored node as plain data; None where there is none."""
        if node not in self._known:
            return None
        if node not in self._read:
            path = self._file(node)
            data = read_json(path) if path.is_file() else None
            if data is not None and not isinstance(data, dict):
                raise UserError(f"{path}: not a node; move its folder away to train it again")
            self._read[node] = data
        return self._read[node]

    def _chain(self, node: str) -> list[Node] | None:
        """The stored node after its stored ancestors; None where one of them is gone."""
        found: list[Node] = []
        wanted: str | None = node
        while wanted is not None:
            data = self.get(wanted)
            if data is None:
                return None
            path = self._file(wanted)
            found.append(parse(Node, data, lambda key, path=path: str(path)))  # type: ignore[misc]
            wanted = found[-1].parent
            if wanted in {one.id for one in found}:
                raise UserError(f"{path}: is among its own parents; move its folder away to train it again")
        return found[::-1]

    def _file(self, node: str) -> Path:
        assert self._store is not None
        return self._store.node(node) / "node.json"


def finished(store: Store | None, nodes: Collection[str]) -> frozenset[str]:
    """Those of `nodes` that the store has marked done."""
    if store is None:
        return frozenset()
    known = _names(store.root / "nodes")
    return frozenset(node for node in known & set(nodes) if (store.node(node) / "done.json").is_file())


def launched(store: Store | None, sweep: str, leaves: Collection[str]) -> dict[str, Any] | None:
    """The plan the sweep was last launched with, if it ends in any state that is not one of `leaves`.

    As plain data: it may have been written by a version whose plans said less or more. A file that is no plan counts as
    none: launching writes it anew.
    """
    path = store.sweep(sweep) / "launched.json" if store else None
    if path is None or not path.is_file():
        return None
    try:
        data: dict[str, Any] = from_json(path.read_bytes())
        ends = {run["nodes"][-1] for run in data["runs"]}
        return data if data.keys() >= {"arms", "nodes"} and not ends <= set(leaves) else None
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except FileNotFoundError:
        return set()


def _chain(nodes: Mapping[str, Node], node: str) -> list[Node]:
    """The node after its ancestors."""
    found = [nodes[node]]
    while (parent := found[-1].parent) is not None:
        found.append(nodes[parent])
    return found[::-1]
