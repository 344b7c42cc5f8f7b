"""The chaos test on a sweep of the repository, by hand (docs/survival.md):

    python tests/chaos/long_form.py --store STORE [--folder FOLDER] [--seed N] [OVERRIDE ...]

STORE holds the embedded pool (python -m davinci data build embedded --store STORE) and is only read. The sweep is
launched by launch.py, on a Slurm of its own and undisturbed on this machine; FOLDER (a new one in the temporary folder)
is where both happen. The same FOLDER again does the undisturbed one no second time. As root, since it starts a Slurm
and mounts a file system of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import conductor
import faults
import onlooker
from scene import Scene

from davinci.config import parse
from davinci.errors import UserError
from davinci.planning.plan import Plan
from davinci.store import Store, read_json

REPOSITORY = Path(__file__).resolve().parents[2]
SWEEP = "qa_ratio_stage2_2"
# 24 runs on 8 trunks. With fewer tokens a branch writes no row before its end, and nothing can be struck in the middle.
OVERRIDES = ("scale=smoke", "evaluation.limit=40", "seed=range(8)")
SLURM = ("cluster=slurm", "cluster.time_minutes=30", "cluster.cpus_per_task=1", "cluster.memory_gb=1")
PARALLEL = "cluster.max_parallel=8"
EXTRA = (faults.parent_truncated, faults.preempted, faults.preempted, faults.node_failed)
MEGABYTES = 1000
LIMIT_SECONDS = 2 * 3600


def main() -> int:
    parser = argparse.ArgumentParser(description="Disturb a sweep on a Slurm of its own and compare with undisturbed.")
    parser.add_argument("--store", type=Path, required=True, help="where the embedded pool is")
    parser.add_argument("--folder", type=Path, help="where to work (default: a new folder)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of faults, victims and moments")
    parser.add_argument("overrides", nargs="*", help="of the sweep, as for launch.py")
    options = parser.parse_args()
    folder = options.folder.absolute() if options.folder else Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"working in {folder}", flush=True)
    overrides = [*OVERRIDES, *options.overrides]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    quiet = _store(folder / "quiet", options.store)
    run = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
    with (folder / "quiet.log").open("ab") as log:
        command = _launch(quiet, [*overrides, "cluster=local", "tracking=disabled"])
        undisturbed = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    with conductor.slurm(run / "slurm", environment), conductor.small_disk(run / "disk", MEGABYTES):
        os.environ["SLURM_CONF"] = environment["SLURM_CONF"]
        store = _store(run / "disk" / "store", options.store)
        command = _launch(store, [*overrides, *SLURM, PARALLEL, "tracking=disabled"])
        subprocess.run([*command, "plan_only=true"], check=True, stdout=subprocess.DEVNULL, env=environment)
        path = store.sweep(SWEEP) / "plan.json"
        plan = parse(Plan, read_json(path), where=lambda key: f"{path}:{key}")
        scene = Scene(plan, store, command, run / "slurm", environment, run)
        dice = Random(options.seed)
        schedule = conductor.schedule(len(plan.chains()), dice, EXTRA)
        report = conductor.conduct(scene, schedule, dice, LIMIT_SECONDS)
        if undisturbed.wait():
            raise UserError(f"the undisturbed sweep failed; see {folder / 'quiet.log'}")
        report.wrong += onlooker.differences(scene, quiet)
    print(report.text())
    return 1 if report.wrong else 0


def _store(root: Path, pools: Path) -> Store:
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "pools").exists():
        (root / "pools").symlink_to((pools / "pools").absolute())
    return Store(root)


def _launch(store: Store, overrides: list[str]) -> list[str]:
    return [sys.executable, str(REPOSITORY / "launch.py"), "-m", f"sweep={SWEEP}", f"store={store.root}", *overrides]


if __name__ == "__main__":
    sys.exit(main())
