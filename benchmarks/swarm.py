"""Launching at scale, run by hand: the 200 runs of sweeps/mixture_swarm.yaml from an empty store to the table.

Real jobs on a Slurm of four nodes on this machine (tests/slurm/cluster.sh install; root), eight at a time; every run is
mirrored by the real W&B client to a server on loopback, and the report is rendered. Prints wall times, files, peak
memory and what the server received; exits with 1 where a run is missing anywhere.

Usage: python benchmarks/swarm.py [--store STORE] [--folder FOLDER] [OVERRIDE ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launching import ASKED, POOL, ROOT, fresh, slurm, succeed
from rich.console import Console
from rich.table import Table

from davinci.data.build import build
from davinci.data.cards import read_card
from davinci.data.pool_files import find_pool
from davinci.evaluation.embedded import make_tasks
from davinci.store import Store, read_json

sys.path.insert(0, str(ROOT / "tests" / "tracking"))
from wandb_server import Server, serving

SWEEP = "mixture_swarm"
# A trunk of 70 thousand tokens, 4 thousand behind it a run, and a tenth of the benchmarks' items.
SMALL = ["scale=smoke", "scale.tokens_per_trillion=10000", "evaluation.limit=16"]


@dataclass(frozen=True)
class Used:
    """What a process took: seconds, peak megabytes, and its output."""

    seconds: float
    megabytes: float
    output: str

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.megabytes:.0f} MB"


def use(arguments: Sequence[str], **environment: str) -> Used:
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if child.returncode:
        sys.exit(f"{' '.join(arguments)}\n{text[-4000:]}")
    return Used(time.perf_counter() - started, usage.ru_maxrss / 1024, text)


def peak_of_jobs(store: Store) -> float:
    """Peak megabytes so far of the largest job's process that runs now."""
    peak = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(store.jobs(SWEEP)) not in (folder / "cmdline").read_text():
                continue
            words = (folder / "status").read_text().split()
            peak = max(peak, int(words[words.index("VmHWM:") + 1]) / 1024)
        except (OSError, ValueError):
            continue  # It has just ended.
    return peak


def wait(store: Store) -> float:
    """Until no job is left; returns the peak megabytes of a job."""
    peak, told = 0.0, time.monotonic()
    while left := succeed(["squeue", "--noheader", "--me", "--array"]).splitlines():
        peak = max(peak, peak_of_jobs(store))
        if time.monotonic() > told + 60:
            told = time.monotonic()
            print(f"  {len(left)} jobs left", flush=True)
        time.sleep(1)
    return peak


def missing(server: Server, runs: set[str], states: Counter[str], report: str) -> list[str]:
    """What is not as it must be."""
    complete = [run for run in server.runs.values() if run.job_type == "run" and run.exit_code == 0 and run.history]
    found = {
        f"runs done: {states['done']}": states["done"] != len(runs),
        f"W&B runs finished: {len(complete)}": len(complete) != len(runs),
        "no report of the sweep": SWEEP not in report,
    }
    return [what for what, wrong in found.items() if wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the embedded pool is, or is built")
    parser.add_argument("--folder", type=Path, help="keep everything there; it must not exist")
    parser.add_argument("override", nargs="*", help="of the sweep, such as seed=0,1")
    given = parser.parse_args()
    pool = Store(given.store)
    if read_card(pool, POOL) is None:
        build(find_pool(POOL), pool, print)
    make_tasks(pool, POOL)
    with tempfile.TemporaryDirectory(prefix="davinci-swarm-") as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        store = fresh(folder / "store", pool.root / "pools")
        with serving() as server, slurm(folder / "slurm"):
            swarm(store, server, given.override)


def swarm(store: Store, server: Server, overrides: list[str]) -> None:
    started = time.perf_counter()
    place = ["cluster=slurm", "cluster.max_parallel=8", *ASKED, "tracking=online", f"store={store.root}"]
    launch = ["launch.py", "-m", f"sweep={SWEEP}", *SMALL, *overrides, *place]
    launched = use(launch, **server.environment)
    status = ["-m", "davinci", "status", SWEEP, "--store", str(store.root)]
    meanwhile = use(status)
    peak = wait(store)
    wall = time.perf_counter() - started
    again = use(launch, **server.environment)
    over = use([*status, "--json"])
    report = use(["-m", "analysis", "report", SWEEP, "--store", str(store.root)])
    runs = set(read_json(store.runs(SWEEP)))
    nodes = len(list((store.root / "nodes").iterdir()))
    files = Counter(
        path.relative_to(store.root).parts[0]
        for path in store.root.rglob("*")
        if path.is_file() and "pools" not in path.relative_to(store.root).parts
    )
    states = Counter(run["state"] for run in json.loads(over.output)["runs"])
    rows = sum(len(run.history) for run in server.runs.values())
    table = Table("figure", "measured", title=f"{len(runs)} runs of {SWEEP}, {nodes} nodes", title_justify="left")
    table.add_row("from launch.py to the last W&B run finished", f"{wall:.0f} s")
    table.add_row("launch.py", str(launched))
    table.add_row("launch.py again, all done", str(again))
    table.add_row("peak memory of a job", f"{peak:.0f} MB")
    table.add_row("status, meanwhile", str(meanwhile))
    table.add_row("status --json, at the end", str(over))
    table.add_row("runs by state", ", ".join(f"{count} {state}" for state, count in states.items()))
    table.add_row("analysis report", str(report))
    table.add_row("files in the store", f"{files.total():,} ({files.total() / len(runs):.1f} a run)")
    table.add_row("of them", ", ".join(f"{count:,} in {part}" for part, count in files.most_common()))
    table.add_row("W&B runs received, their rows", f"{len(server.runs)}, {rows:,}")
    Console(width=110).print(table)
    wrong = missing(server, runs, states, report.output)
    sys.exit(f"not as it must be: {'; '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
