"""What tests of Slurm jobs do again and again: launch, look at the jobs, wait for them, compare the outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import launch_fakes
import pytest

from davinci.launching.job import read_job, run_job
from davinci.launching.launch import launch, write_jobs
from davinci.launching.status import run_states
from davinci.planning.plan import Plan, load_plan
from davinci.store import Store, read_json
from davinci.tracking.records import read

SLURM = {"kind": "slurm", "time_minutes": 10}


def submit(plan: Plan, store: Store) -> int:
    first = plan.arms[0].config
    return launch(plan, store, first.cluster, first.tracking)


def jobs(store: Store) -> dict[str, str]:
    """Job id of each chain."""
    found: dict[str, str] = read_json(store.jobs("fake") / "slurm.json")
    return found


def wait_for(store: Store, sweep: str = "fake") -> None:
    """Until all jobs of the sweep, the mirror's included, have left the queue."""
    names = {path.name.split("_")[0] for path in (store.jobs(sweep) / "slurm").glob("*_submitted.pkl")}
    command = ["srun", "--quiet", "--mem=1", "--partition=urgent", f"--dependency=afterany:{':'.join(sorted(names))}"]
    subprocess.run([*command, "true"], check=True, timeout=300, cwd="/", capture_output=True)


def wait_until(holds: Callable[[], bool], seconds: float = 180) -> None:
    """Until a condition on other processes holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.05)


def field(job: str, name: str) -> str:
    shown = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return next(part.partition("=")[2] for part in shown.split() if part.startswith(f"{name}="))


def state(job: str) -> str:
    return field(job, "JobState")


def digests(store: Store) -> dict[str, str]:
    marks = [json.loads(path.read_text()) for path in (store.root / "nodes").glob("*/done.json")]
    return {mark["node"]: mark["weights_digest"] for mark in marks}


def run_here(plan: Plan, store: Store) -> dict[str, str]:
    """Digests of the weights that a run on this machine gives, steered by nobody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FAKE_CONTROL", raising=False)
        for name, module in launch_fakes.stand_ins().items():
            patch.setitem(sys.modules, name, module)
        for path in write_jobs(plan, store, [chain.name for chain in plan.chains()]).values():
            run_job(read_job(path), lambda event: None, lambda: False)
    return digests(store)


def steered(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Have jobs run the stand-ins for training, steered by files in the folder that is returned (see `launch_fakes`).

    They get them through a sitecustomize module, since submitit starts a plain interpreter.
    """
    site, control = folder / "site", folder / "control"
    site.mkdir()
    control.mkdir()
    (site / "sitecustomize.py").write_text("import launch_fakes\nlaunch_fakes.install()\n")
    patch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(Path(launch_fakes.__file__).parent)]))
    patch.setenv("FAKE_CONTROL", str(control))
    for name, module in launch_fakes.stand_ins().items():
        patch.setitem(sys.modules, name, module)
    return control


def states(store: Store) -> list[Any]:
    return [(one.state, one.error) for one in run_states(load_plan(store, "fake"), store)]


def is_done(store: Store) -> bool:
    return all(one.state == "done" for one in run_states(load_plan(store, "fake"), store))


def attempts(store: Store, node: str) -> dict[int, int]:
    """By which attempt each training row was written."""
    return {row["tokens"]: row["attempt"] for row in read(store.records(node)) if row["kind"] == "train"}


def deaths(store: Store, chain: str) -> int:
    path = store.jobs("fake") / f"{chain}.attempts.json"
    return int(read_json(path)["count"]) if path.is_file() else 0


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """The most spans (begin, end) that overlap."""
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


def times(store: Store) -> list[tuple[float, float]]:
    """When each node was trained: its first and its last row."""
    rows = [[row["time"] for row in read(path)] for path in (store.root / "nodes").glob("*/records.jsonl")]
    return [(min(found), max(found)) for found in rows]
