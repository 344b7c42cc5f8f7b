"""Finished runs that an edit left behind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from davinci.config import Node
from davinci.planning.differences import differences
from davinci.planning.identity import told
from davinci.planning.plan import Orphan, PlannedRun
from davinci.planning.sweep import Arm

# What never enters an id, so that it cannot have moved a run.
_NOT_TRAINING = frozenset(
    {"sweep", "arm", "seed", "store", "tracking", "cluster", "evaluation", "checkpoint_every_tokens"}
)
# Keys that move a run only through the sources its stages read.
_DATA = re.compile(r"^(pool|depth)\.|\.(depth|mixture)\.")


def orphans(
    previous: Mapping[str, Any],
    runs: Sequence[PlannedRun],
    nodes: Mapping[str, Node],
    arms: Sequence[Arm],
    done: frozenset[str],
) -> tuple[Orphan, ...]:
    """Runs of `previous` that are finished but end in no state of the present plan, and what moved them.

    Args:
        previous: the plan of the last launch, as plain data.
        runs: the present runs; an old one is set against the one of its arm and seed.
        nodes: the present nodes.
        arms: the present arms.
        done: ids of finished nodes, those of `previous` among them.
    """
    now = {(run.arm, run.seed): run for run in runs}
    configs = {arm.label: arm.config.model_dump(mode="json") for arm in arms}
    before = {arm["label"]: arm["config"] for arm in previous["arms"]}
    diffs: dict[str, tuple[str, ...]] = {}
    found = []
    for run in previous["runs"]:
        arm, seed = run["arm"], run["seed"]
        if run["nodes"][-1] in nodes or not done.issuperset(run["nodes"]):
            continue
        present = now.get((arm, seed))
        if present is None:
            diff: tuple[str, ...] = ()
        else:
            if arm not in diffs:
                old = [previous["nodes"][node] for node in run["nodes"]]
                new = [nodes[node].model_dump(mode="json") for node in present.nodes]
                diffs[arm] = _diff(before[arm], configs[arm], old, new)
            diff = diffs[arm]
        found.append(Orphan(run=run["id"], arm=arm, seed=seed, diff=diff))
    return tuple(found)


def _diff(
    before: Mapping[str, Any], after: Mapping[str, Any], old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    """Why the same arm and seed no longer train the same: config keys, or else data, or else the scheme of ids."""
    left_out = _NOT_TRAINING
    if before["seeds_from"] is None and after["seeds_from"] is None:
        left_out |= {"trunk_seed"}  # no stage uses it
    changed: dict[str, tuple[Any, Any]] = differences(before, after, left_out)
    if [node["sources"] for node in old] == [node["sources"] for node in new]:  # said otherwise, the same data
        changed = {key: values for key, values in changed.items() if not _DATA.search(key)}
    changed = changed or _content(old, new)
    if not changed:
        return ("same config and data: the scheme or the numerics version of ids changed",)
    return told(changed)


def _content(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Sources and tokenizers whose content changed, by digest."""
    before, after = (
        {(name, use["depth"]): use["digest"] for node in nodes for name, use in node["sources"].items()}
        for nodes in (old, new)
    )
    changed: dict[str, tuple[Any, Any]] = {
        f"content of {name}@{depth}": (_short(digest), _short(after[name, depth]))
        for (name, depth), digest in before.items()
        if (name, depth) in after and after[name, depth] != digest
    }
    tokenizers = old[-1]["tokenizer_digest"], new[-1]["tokenizer_digest"]
    if tokenizers[0] != tokenizers[1]:
        changed["content of the tokenizer"] = _short(tokenizers[0]), _short(tokenizers[1])
    return changed


def _short(digest: str | None) -> str:
    return "unknown" if digest is None else digest[:12]
