"""``where``: paths of a run, or of a sweep."""

from __future__ import annotations

import argparse
from typing import Any

from davinci.commands.names import RunName, find, read_manifest, read_manifests
from davinci.commands.output import aligned, print_json
from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    planned = (store.root / "sweeps" / options.name / "plan.json").is_file() and "/" not in options.name
    name = options.name if planned else find(store, options.name)
    found = _of_sweep(store, name) if isinstance(name, str) else _of_run(store, name)
    if options.json:
        print_json(found)
    else:
        print(_text(found))
    return 0


def _of_sweep(store: Store, sweep: str) -> dict[str, Any]:
    folder = store.sweep(sweep)
    plans = {name: folder / f"{name}.json" for name in ("plan", "launched")}
    return {
        "sweep": sweep,
        **{name: str(path) if path.is_file() else None for name, path in plans.items()},
        "report": str(folder / "report"),
        "logs": str(store.jobs(sweep)),
        "runs": sorted(read_manifests(store, sweep)) if store.runs(sweep).is_file() else [],
    }


def _of_run(store: Store, run: RunName) -> dict[str, Any]:
    nodes = []
    for node in read_manifest(store, run)["nodes"]:
        folder = store.node(node["id"])
        records = store.records(node["id"])
        nodes.append(
            {
                **node,
                "folder": str(folder),
                "records": str(records) if records.is_file() else None,
                "checkpoints": [str(path) for path in sorted((folder / "checkpoints").glob("[0-9]*"))],
                "evaluations": [str(path) for path in sorted((folder / "evaluations").glob("*.parquet"))],
            }
        )
    return {
        "run": run.id,
        "sweep": run.sweep,
        "manifest": str(store.runs(run.sweep)),
        "logs": str(store.jobs(run.sweep)),
        "nodes": nodes,
    }


def _text(found: dict[str, Any]) -> str:
    rows: list[tuple[str, str]] = []
    for key, value in found.items():
        if key == "runs":
            rows += [("run", one) for one in value]
        elif key == "nodes":
            for node in value:
                stretch = f"{node['begin']} to {node['end']} tokens"
                rows.append(("node", f"{node['folder']}  ({stretch})"))
                rows += [("  records", node["records"])] if node["records"] else []
                rows += [("  checkpoint", path) for path in node["checkpoints"]]
                rows += [("  evaluation", path) for path in node["evaluations"]]
        else:
            rows.append((key, value or "none"))
    return aligned(rows)
