"""What a launch leaves of its plan in the store: launched.json and a manifest for every run."""

from __future__ import annotations

import json
from pathlib import Path

from davinci.planning.plan import Plan
from davinci.store import Store, write_text


def record(plan: Plan, store: Store) -> None:
    """Write ``launched.json`` and ``runs/<run id>.json`` (id, arm, seed, ranges of nodes, points, config) of the sweep.

    Manifests of runs that the plan does not hold go; their nodes stay. Files that say so already are not written.
    """
    folder = store.sweep(plan.sweep)
    runs = folder / "runs"
    there = {path.name for path in runs.glob("*.json")}
    planned = {f"{run.id}.json" for run in plan.runs}
    for name in there - planned:  # of another scale, or an arm taken out
        (runs / name).unlink()
    if not _write(folder / "launched.json", plan.model_dump_json(indent=1)) and there >= planned:
        return
    arms = {arm.label: arm for arm in plan.arms}
    for run in plan.runs:
        manifest = run.model_dump(mode="json")
        manifest["sweep"] = plan.sweep
        manifest["nodes"] = [
            {"id": node, "begin": plan.nodes[node].begin, "end": plan.nodes[node].end} for node in run.nodes
        ]
        config = arms[run.arm].run(run.seed).model_dump_json()
        _write(runs / f"{run.id}.json", f'{json.dumps(manifest)[:-1]}, "config": {config}}}')


def _write(path: Path, text: str) -> bool:
    """Whether the file had to be written."""
    text += "\n"
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    write_text(path, text)
    return True
