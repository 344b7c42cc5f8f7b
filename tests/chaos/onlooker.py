"""What must hold of a sweep whatever was done to it: no node trained twice at a time or again without cause, every
status right, and in the end the same bits as undisturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from scene import Scene, SlurmJob

from davinci.store import Store, read_json


def twins(queue: Sequence[SlurmJob]) -> list[str]:
    """Chains that two jobs run at once."""
    running = Counter(job.chain for job in queue if job.state == "RUNNING" and job.chain)
    return [f"{chain} runs in {count} jobs at once" for chain, count in running.items() if count > 1]


def wrong_records(scene: Scene) -> list[str]:
    """Nodes whose records tell of two writers at a time, of work after the end, or of more attempts than faults."""
    found = []
    for node, chain in scene.chain_of.items():
        rows = _rows(scene.store.records(node))
        if any(after["attempt"] < before["attempt"] for before, after in pairwise(rows)):
            found.append(f"{node}: an earlier attempt wrote after a later one")
        by_attempt = defaultdict(list)
        for row in rows:
            by_attempt[row["attempt"], row["kind"] == "train"].append(row["tokens"])
        for (attempt, is_train), tokens in by_attempt.items():
            if is_train and any(after <= before for before, after in pairwise(tokens)):
                found.append(f"{node}: attempt {attempt} was trained by two at a time")
        mark = read_json(scene.store.node(node) / "done.json") if scene.is_done(node) else None
        if mark and mark["records_bytes"] != scene.store.records(node).stat().st_size:
            found.append(f"{node}: rows were written after it was done")
        attempts, hits = rows[-1]["attempt"] if rows else 0, scene.ledger.hits[chain]
        if attempts > 1 + hits:
            found.append(f"{node}: {attempts} attempts, though it was struck only {hits} times")
        scores = Counter(
            (row["tokens"], row["benchmark"], row["suite"], row["attempt"])
            for row in rows
            if row["kind"] == "evaluation"
        )
        if scores and max(scores.values()) > 1:
            found.append(f"{node}: evaluated twice in one attempt")
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows as they were written, torn ones left out."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def wrong_statuses(scene: Scene) -> list[str]:
    """What ``status --json`` says of a run that is not so, neither just before nor just after it was asked."""
    before, told, after = truth(scene), ask(scene), truth(scene)
    try:
        said = {run["id"]: run["state"] for run in json.loads(told)["runs"]}
    except ValueError:
        return [f"status --json: {told.strip()[-300:]}"]
    return [
        f"run {run}: status says {said.get(run)}, but it is {state}"
        for run, state in before.items()
        if after[run] == state != said.get(run)
    ]


def ask(scene: Scene) -> str:
    """What ``status --json`` prints."""
    command = [sys.executable, "-m", "davinci", "status", scene.plan.sweep, "--json", "--store", str(scene.store.root)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, env=scene.environment)
    return told.stdout or told.stderr


def truth(scene: Scene) -> dict[str, str]:
    """State of every run, from processes, marks and Slurm."""
    done = {node for node in scene.plan.nodes if scene.is_done(node)}
    failed, alive = scene.failed(), {node for node in scene.plan.nodes if _holds(scene.store.node(node))}
    found = {}
    for run in scene.plan.runs:
        left = [node for node in run.nodes if node not in done]
        chains = [scene.chain_of[node] for node in left]
        if not left:
            found[run.id] = "done"
        elif any(node in alive for node in left):
            found[run.id] = "running"
        elif failed & set(chains):
            first = next(chain for chain in chains if chain in failed)
            found[run.id] = "failed" if first == scene.chain_of[run.nodes[-1]] else "blocked"
        else:
            found[run.id] = "waiting"
    return found


def _holds(folder: Path) -> bool:
    """Whether a process that is alive is named in the newest lock file."""
    locks = sorted(folder.glob("lock.*"))
    try:
        pid = int(json.loads(locks[-1].read_text())["pid"])
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (IndexError, OSError, ValueError, KeyError):
        return False


def tables(store: Store, sweep: str) -> dict[str, str]:
    """Files of the sweep's report that must not depend on what happened on the way."""
    from analysis.findings import study
    from analysis.tables import render_csv, render_json, render_markdown

    found = study(store, sweep)
    return {
        "table.json": render_json(found.table),
        "scores.csv": render_csv([row._asdict() for row in found.grid.all_rows]),
        "benchmarks.md": render_markdown(found.chance_table) + render_markdown(found.benchmark_table),
    }


def differences(scene: Scene, quiet: Store) -> list[str]:
    """Where the sweep's weights and tables differ from those of the undisturbed one in `quiet`."""
    undisturbed = Scene(scene.plan, quiet, (), scene.cluster, {}, scene.logs).digests()
    found = scene.digests()
    wrong = [f"{node}: other weights than undisturbed" for node in undisturbed if found.get(node) != undisturbed[node]]
    if undisturbed.keys() != scene.plan.nodes.keys():
        wrong.append("the undisturbed sweep is not done")
    ours, theirs = tables(scene.store, scene.plan.sweep), tables(quiet, scene.plan.sweep)
    return wrong + [f"{name} differs from the undisturbed one's" for name in ours if ours[name] != theirs[name]]
