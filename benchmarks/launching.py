"""Launching against hydra-submitit-launcher on this machine and a plain sbatch array on a Slurm, doing the same work.

The work is the smallest training there is: a step of the tiny model at scale smoke, its held-out loss, its checkpoint.
Ours is the whole ``launch.py`` process: composing, planning, training. The peers get the jobs that ours has planned and
frozen, and call `davinci.launching.job.perform` on each, so that nothing but the launching differs.

Usage: python benchmarks/launching.py [--quick] [--store STORE]   (STORE holds the embedded pool, or gets it)

hydra-submitit-launcher is used where it is installed, else installed into a temporary folder by pip. The rows on Slurm
need its daemons and root (tests/slurm/cluster.sh install), and are left out where there are none.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from _finished import finish_nodes
from _table import Row, finish
from planning import sweep_lines

from davinci.data.build import build
from davinci.data.cards import read_card
from davinci.data.pool_files import find_pool
from davinci.evaluation.embedded import make_tasks
from davinci.launching.launch import write_jobs
from davinci.launching.manifests import record
from davinci.planning.plan import Plan
from davinci.store import Store, read_json

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
POOL = "embedded"
PEER = "hydra-submitit-launcher==1.2.0"
TRIVIAL = [
    "scale=smoke",
    "curriculum=stage1",
    "~curriculum.stages.s1_2",
    "~curriculum.stages.s1_3",
    "curriculum.stages.s1_1.tokens=128",
    "curriculum.stages.s1_1.lr.warmup_tokens=128",
    "evaluation.at=[]",
    "evaluation.probes=null",
    "evaluation.heldout_sequences=1",
    "tracking=disabled",
]
# What a user of Hydra writes: the config names the job, the function does it. Argument: the folder of jobs.
HYDRA_APP = """
import sys
from pathlib import Path

import hydra


@hydra.main(version_base="1.3", config_path=None)
def main(config):
    from davinci.launching.job import perform

    jobs = sorted(Path(config.jobs).glob("[0-9]*.json"))
    assert perform(jobs[config.job], lambda event: None, lambda: False).state == "done"


main()
"""
# What a user of Slurm writes.
ARRAY_SCRIPT = """#!/bin/sh
exec {python} -c 'if True:
    import os, sys
    from pathlib import Path
    from davinci.launching.job import perform
    jobs = sorted(Path(sys.argv[1]).glob("[0-9]*.json"))
    job = jobs[int(os.environ["SLURM_ARRAY_TASK_ID"])]
    sys.exit(perform(job, lambda event: None, lambda: False).state != "done")
' {jobs}
"""


def command(runs: int, store: Store, *more: str) -> list[str]:
    swept = f"seed=range({runs})"
    return [sys.executable, str(ROOT / "launch.py"), "-m", swept, *TRIVIAL, f"store={store.root}", *more]


def succeed(arguments: Sequence[str | Path], cwd: Path | None = None, **environment: str) -> str:
    """Output of a command that has to succeed."""
    done = subprocess.run(
        arguments, cwd=cwd, env=os.environ | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def fresh(folder: Path, pools: Path) -> Store:
    """A store with the pool and nothing else."""
    store = Store(folder)
    store.root.mkdir(parents=True)
    (store.root / "pools").symlink_to(pools.absolute())
    return store


def planned(store: Store) -> Plan:
    (path,) = store.root.glob("sweeps/*/plan.json")
    return Plan.model_validate(read_json(path), strict=False)


def frozen(runs: int, store: Store) -> Path:
    """Plan the trivial runs and freeze their jobs; returns the folder of jobs."""
    succeed([*command(runs, store), "plan_only=true"])
    plan = planned(store)
    write_jobs(plan, store, [chain.name for chain in plan.chains()])
    return store.jobs(plan.sweep)


def trained(store: Store) -> int:
    return len(list(store.root.glob("nodes/*/done.json")))


def files_of_runs(store: Store, runs: int) -> Counter[str]:
    """Files the launcher writes for every run, by what they are; not checkpoints, records and what vouches for them.

    Files of the sweep as a whole, whose number does not grow with its runs, are left out.
    """
    found = [path for part in ("jobs", "sweeps", "nodes") for path in (store.root / part).rglob("*") if path.is_file()]
    named = Counter(
        path.suffix.rstrip("0123456789") + " in " + path.relative_to(store.root).parts[0]
        for path in found
        if "checkpoints" not in path.parts
        and path.name not in ("records.jsonl", "node.json", "done.json")
        and not path.name.startswith("worker")
    )  # fmt: skip
    return Counter({name: count for name, count in named.items() if count >= runs})


def local(runs: int, jobs: int, rounds: int, pools: Path, folder: Path) -> list[Row]:
    """Ours with `runs` and the peer with `jobs` in turn, every time in a new store."""
    path = [] if importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") else [str(folder / "peer")]
    for target in path:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        succeed([*pip, "--target", target, PEER])
    path = [*path, *filter(None, [os.environ.get("PYTHONPATH")])]
    app = folder / "app.py"
    app.write_text(HYDRA_APP)
    ours, peers = [], []
    for turn in range(rounds):
        mine, theirs = fresh(folder / f"ours{turn}", pools), fresh(folder / f"peer{turn}", pools)
        files = frozen(jobs, theirs)
        ours.append(seconds(partial(succeed, command(runs, mine))))
        hydra = [sys.executable, app, "-m", "hydra/launcher=submitit_local", f"+jobs={files}", f"+job=range({jobs})"]
        peers.append(seconds(partial(succeed, hydra, cwd=theirs.root, PYTHONPATH=os.pathsep.join(path))))
        assert (trained(mine), trained(theirs)) == (runs, jobs)
        print(f"  {runs} local runs: {ours[-1]:.1f} s, {jobs} of the peer: {peers[-1]:.1f} s", flush=True)
    found = files_of_runs(mine, runs)
    count = found.total() / runs
    multirun = sum(1 for file in (theirs.root / "multirun").rglob("*") if file.is_file()) / jobs
    print(f"  files a run: {dict(found)}; hydra-submitit-launcher {multirun:.1f}", flush=True)
    mean, other = median(ours) / runs, median(peers) / jobs
    return [
        Row(f"a trivial run, of {runs} local ones", f"{1e3 * mean:.0f} ms", f"{1e3 * other:.0f} ms", other / mean, 10),
        Row("files a run beside what it trained", f"{count:.1f}", f"{multirun:.1f}; 3 allowed", 3 / count, 1),
    ]


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """A Slurm of four nodes on this machine."""
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    succeed([CLUSTER, "start", folder])
    try:
        yield
    finally:
        succeed([CLUSTER, "stop", folder])
        del os.environ["SLURM_CONF"]


def queue_empty() -> None:
    while succeed(["squeue", "--noheader", "--me"]):
        time.sleep(0.2)


def throttled(runs: int, target: float, pools: Path, folder: Path) -> Row:
    """Jobs eight at a time, as a plain array, then by the launcher; from the first command to the last end."""
    mine, theirs = fresh(folder / "queued", pools), fresh(folder / "array", pools)
    script = folder / "array.sh"
    script.write_text(ARRAY_SCRIPT.format(python=sys.executable, jobs=frozen(runs, theirs)))

    def launched() -> None:
        succeed(command(runs, mine, "cluster=slurm", "cluster.max_parallel=8", *ASKED))
        queue_empty()

    def arrayed() -> None:
        sbatch = ["sbatch", "--cpus-per-task=1", f"--array=0-{runs - 1}%8", "--output=/dev/null", script]
        succeed(sbatch, cwd=folder, OMP_NUM_THREADS="1")
        queue_empty()

    with slurm(folder / "slurm"):
        peer, ours = seconds(arrayed), seconds(launched)
    assert trained(mine) == trained(theirs) == runs
    print(f"  {runs} jobs on Slurm: {ours:.1f} s, a plain array {peer:.1f} s", flush=True)
    return Row(f"{runs} short jobs on Slurm, 8 at a time", f"{ours:.0f} s", f"{peer:.0f} s", peer / ours, target)


ASKED = ["cluster.cpus_per_task=1", "cluster.memory_gb=1", "cluster.time_minutes=30"]


def status(runs: int, pools: Path, folder: Path) -> list[Row]:
    """What `status` takes of a sweep that is over and of one half way, less what it takes of a single run."""
    store = fresh(folder / "status", pools)
    lines = sweep_lines(5, runs // 200)
    succeed([sys.executable, ROOT / "launch.py", "-m", *lines, f"store={store.root}", "plan_only=true"])
    plan = planned(store)
    record(plan, store)
    finish_nodes(plan, store)
    alone = fresh(folder / "alone", pools)
    succeed([*command(1, alone), "plan_only=true"])
    record(planned(alone), alone)

    def ask(of: Store) -> list[str]:
        return [sys.executable, "-m", "davinci", "status", planned(of).sweep, "--store", str(of.root)]

    asked, start = ask(store), ask(alone)
    rows = []
    for what in ("over", "half way"):
        if what == "half way":
            for run in plan.runs[::2]:
                shutil.rmtree(store.node(run.nodes[-1]), ignore_errors=True)
        starts, takes = [], []
        for _ in range(5):
            starts.append(seconds(lambda: succeed(start)))
            takes.append(seconds(lambda: succeed(asked)))
        beside = max(median(takes) - median(starts), 0.001)
        print(
            f"  status of {runs:,} runs, {what}: {median(takes):.2f} s; of one run: {median(starts):.2f} s", flush=True
        )
        rows.append(
            Row(f"status of {runs:,} runs, {what}, after start-up", f"{beside:.2f} s", "1 s allowed", 1 / beside, 1)
        )
    return rows  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 jobs of the local peer, 12 on Slurm, one round of each")
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the embedded pool is, or is built")
    parser.add_argument("--only", nargs="+", choices=["local", "slurm", "status"], default=["local", "slurm", "status"])
    parser.add_argument("--jobs", type=int, default=300, help="on Slurm, of each side (two cores take 4 s a job)")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # What the launcher sets for its workers.
    store = Store(given.store)
    if read_card(store, POOL) is None:
        build(find_pool(POOL), store, print)
    make_tasks(store, POOL)
    pools = store.root / "pools"
    rows = []
    with tempfile.TemporaryDirectory(prefix="davinci-bench-") as temporary:
        folder = Path(temporary)
        if "status" in given.only:
            rows += status(1000, pools, folder)
        if "local" in given.only:
            rows += local(50, *(5, 1) if given.quick else (50, 3), pools, folder)
        if "slurm" in given.only:
            if shutil.which("slurmctld") and os.geteuid() == 0:
                # Of few jobs, planning and the queue's start are a large part.
                runs, target = (12, 0.5) if given.quick else (given.jobs, 1 / 1.1)
                rows.append(throttled(runs, target, pools, folder))
            else:
                print("no row on Slurm: that needs root and tests/slurm/cluster.sh install", flush=True)
    finish("Launching: against hydra-submitit-launcher and a plain array, and against what is allowed", rows)


if __name__ == "__main__":
    main()
