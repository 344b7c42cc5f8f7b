"""Checkpoints that no launched sweep of a store needs.

Needed are, over all launched sweeps together: every checkpoint of a node that one of them has not finished, since it
goes on from there or evaluates there; the end of every finished node, which is what makes it finished and where
children start; and what an unfinished node would take over from the folder of another. What is left are checkpoints in
the middle of finished nodes, taken to be evaluated, which they have been, and those of nodes that no sweep names. Of
the former, `evaluation.keep` of the sweeps that asked for them says more: ``all`` keeps them, and what was asked for
with ``last`` alone goes by itself (`prune`).
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from davinci.config import Frozen
from davinci.launching.donors import donors
from davinci.launching.glance import glance
from davinci.launching.lock import Lock, WaitAbandoned, holder
from davinci.launching.reconcile import checkpoints, done_mark
from davinci.planning.plan import load_plan
from davinci.store import Store


class Superfluous(Frozen):
    """A checkpoint that could go: in the middle of a finished node, or of a node that no sweep names. `path` is its
    folder."""

    node: str
    tokens: int
    path: str
    why: Literal["finished", "no sweep"]


def superfluous(store: Store) -> list[Superfluous]:
    """What could go, by node and tokens. Nodes that someone works on are left out.

    Raises:
        UserError: the plan of a launched sweep cannot be read, so that nobody knows what it needs.
    """
    needs = _Needs(store)
    folder = store.root / "nodes"
    nodes = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [one for node in nodes if holder(store.node(node)) is None for one in needs.superfluous(node)]


def bytes_freed(gone: Iterable[Superfluous]) -> int:
    """Bytes that removing these folders frees. A file of several names counts where all of them go."""
    names: Counter[tuple[int, int]] = Counter()
    files: dict[tuple[int, int], os.stat_result] = {}
    for one in gone:
        for path in Path(one.path).rglob("*"):
            try:
                about = path.lstat()
            except FileNotFoundError:  # Someone was faster.
                continue
            if not path.is_dir():
                names[about.st_dev, about.st_ino] += 1
                files[about.st_dev, about.st_ino] = about
    return sum(about.st_size for key, about in files.items() if names[key] >= about.st_nlink)


def remove(agreed: Collection[Superfluous], store: Store) -> tuple[list[Superfluous], int]:
    """Remove those of `agreed` that are superfluous still; returns them and the bytes that this freed.

    Each node's lock is held meanwhile, and what is needed is found anew whenever a sweep was launched since.
    """
    wanted = {(one.node, one.tokens) for one in agreed}
    needs = _Needs(store)
    gone, freed = [], 0
    for node in sorted({one.node for one in agreed}):
        try:
            with Lock(store.node(node), should_stop=lambda: True):
                if needs.are_outdated:
                    needs = _Needs(store)
                for one in needs.superfluous(node):
                    if (node, one.tokens) in wanted:
                        freed += bytes_freed([one])
                        _remove(one, store)
                        gone.append(one)
        except WaitAbandoned:
            continue  # Someone has begun to work on it.
    return gone, freed


def prune(node: str, store: Store) -> None:
    """Remove the checkpoints of a finished node that no sweep needs, and that all who asked for them want gone."""
    needs = _Needs(store)
    remove([one for one in needs.superfluous(node) if needs.keeps(one) == {"last"}], store)


class _Needs:
    """What the launched sweeps of a store need, all together."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._launched = self._stamps()  # Before anything is read: what is launched meanwhile makes this outdated.
        self._ends: dict[str, set[int]] = {}
        self._unfinished: set[str] = set()
        self._given: set[tuple[str, int]] = set()
        self._keeps: dict[tuple[str, int], set[str]] = {}
        for sweep in sorted(self._launched):
            plan = load_plan(store, sweep)
            unfinished = [node for node, one in glance(plan, store).items() if not one.finished]
            self._unfinished.update(unfinished)
            for node in plan.nodes.values():
                self._ends.setdefault(node.id, set()).add(node.end)
            keeps = {arm.label: arm.config.evaluation.keep for arm in plan.arms}
            for run in plan.runs:
                for point in run.points:
                    self._keeps.setdefault((point.node, point.tokens), set()).add(keeps[run.arm])
            for given in donors(plan, unfinished, store).values():
                self._given.update((one.node, tokens) for one in given for tokens in one.tokens)

    @property
    def are_outdated(self) -> bool:
        """Whether a sweep was launched since."""
        return self._stamps() != self._launched

    def keeps(self, one: Superfluous) -> set[str]:
        """What `evaluation.keep` says where the checkpoint is asked for."""
        return self._keeps.get((one.node, one.tokens), set())

    def superfluous(self, node: str) -> list[Superfluous]:
        """Checkpoints of a node that nobody needs."""
        if node in self._unfinished:
            return []
        ends = self._ends.get(node, set())
        return [
            Superfluous(
                node=node,
                tokens=tokens,
                path=str(self._store.checkpoint(node, tokens)),
                why="finished" if ends else "no sweep",
            )
            for tokens in checkpoints(node, self._store)
            if tokens not in ends
            and (node, tokens) not in self._given
            and "all" not in self._keeps.get((node, tokens), ())
        ]

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """Launched sweeps, and what tells one launch of them from the next."""
        found = {}
        for path in (self._store.root / "sweeps").glob("*/launched.json"):
            about = path.stat()
            found[path.parent.name] = (about.st_ino, about.st_mtime_ns)
        return found


def _remove(one: Superfluous, store: Store) -> None:
    """Remove a checkpoint; it leaves its name at once. A node without its end is not done any more."""
    mark = done_mark(one.node, store)
    if mark is not None and mark["end"] == one.tokens:
        (store.node(one.node) / "done.json").unlink(missing_ok=True)
    folder = Path(one.path)
    removed = folder.with_name(f".removed-{folder.name}-{os.getpid()}")
    folder.rename(removed)
    shutil.rmtree(removed)
