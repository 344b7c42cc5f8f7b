"""Finished runs that an edit left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from davinci.config import Node, Run
from davinci.planning.differences import differences
from davinci.planning.identity import told
from davinci.planning.plan import Orphan, Plan, PlannedRun
from davinci.planning.sweep import Arm

# What never enters an id, so that it cannot have moved a run.
_NOT_TRAINING = frozenset({"sweep", "arm", "store", "tracking", "cluster", "evaluation", "checkpoint_every_tokens"})


def orphans(
    previous: Plan,
    runs: Sequence[PlannedRun],
    nodes: Mapping[str, Node],
    arms: Sequence[Arm],
    done: frozenset[str],
) -> tuple[Orphan, ...]:
    """Runs of `previous` that are finished but end in no state of the present plan, and what moved them.

    Args:
        previous: the plan of the last launch.
        runs: the present runs; an old one is set against the one of its arm and seed.
        nodes: the present nodes.
        arms: the present arms.
        done: ids of finished nodes, those of `previous` among them.
    """
    now = {(run.arm, run.seed): run for run in runs}
    configs = {arm.label: arm for arm in arms}
    diffs: dict[str, tuple[str, ...]] = {}
    found = []
    for run in previous.runs:
        if run.nodes[-1] in nodes or not done.issuperset(run.nodes):
            continue
        present = now.get((run.arm, run.seed))
        if present is None:
            diff: tuple[str, ...] = ()
        else:
            if run.arm not in diffs:
                before, after = previous.config(run), configs[run.arm].run(run.seed)
                old = [previous.nodes[node] for node in run.nodes]
                diffs[run.arm] = _diff(before, after, old, [nodes[node] for node in present.nodes])
            diff = diffs[run.arm]
        found.append(Orphan(run=run.id, arm=run.arm, seed=run.seed, diff=diff))
    return tuple(found)


def _diff(before: Run, after: Run, old: Sequence[Node], new: Sequence[Node]) -> tuple[str, ...]:
    """Why the same arm and seed no longer train the same: config keys, or else data, or else the scheme of ids."""
    changed: dict[str, tuple[Any, Any]] = differences(before, after, _NOT_TRAINING) or _content(old, new)
    if not changed:
        return ("same config and data: the scheme or the numerics version of ids changed",)
    return told(changed)


def _content(old: Sequence[Node], new: Sequence[Node]) -> dict[str, tuple[Any, Any]]:
    """Sources and tokenizers whose content changed, by digest."""
    before, after = (
        {(name, use.depth): use.digest for node in nodes for name, use in node.sources.items()} for nodes in (old, new)
    )
    changed: dict[str, tuple[Any, Any]] = {
        f"content of {name}@{depth}": (_short(digest), _short(after[name, depth]))
        for (name, depth), digest in before.items()
        if (name, depth) in after and after[name, depth] != digest
    }
    if old[-1].tokenizer_digest != new[-1].tokenizer_digest:
        changed["content of the tokenizer"] = _short(old[-1].tokenizer_digest), _short(new[-1].tokenizer_digest)
    return changed


def _short(digest: str | None) -> str:
    return "unknown" if digest is None else digest[:12]
