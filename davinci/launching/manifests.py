"""What a launch leaves of its plan in the store: launched.json, and runs.json with a manifest for every run."""

from __future__ import annotations

import json
from pathlib import Path

from davinci.planning.plan import Plan
from davinci.store import Store, write_text


def record(plan: Plan, store: Store) -> None:
    """Write ``launched.json`` and ``runs.json`` (by run id: arm, seed, ranges of nodes, points, config) of the sweep.

    One file for all runs, since a store on a shared file system counts its files. Nodes of runs that the plan does not
    hold stay. Files that say so already are not written.
    """
    folder, runs = store.sweep(plan.sweep), store.runs(plan.sweep)
    if not _write(folder / "launched.json", plan.model_dump_json(indent=1)) and runs.is_file():
        return
    arms = {arm.label: arm for arm in plan.arms}
    lines = []
    for run in plan.runs:
        manifest = run.model_dump(mode="json")
        manifest["sweep"] = plan.sweep
        manifest["nodes"] = [
            {"id": node, "begin": plan.nodes[node].begin, "end": plan.nodes[node].end} for node in run.nodes
        ]
        config = arms[run.arm].run(run.seed).model_dump_json()
        lines.append(f'{json.dumps(run.id)}: {json.dumps(manifest)[:-1]}, "config": {config}}}')
    _write(runs, "{\n" + ",\n".join(lines) + "\n}")


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
