"""Carries out a chaos run: faults strike as the sweep gets on, launches repeat until nothing is left, all is counted.

Which fault strikes whom, and from which progress of the sweep on, comes from a seed; that it strikes depends on what is
seen (`faults`), never on time.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import faults
import onlooker
from faults import Fault
from scene import CLUSTER, LIVE, Scene

from davinci.launching.attempts import attempts_path, read_attempts
from davinci.tracking.records import read

LOOK_SECONDS = 0.2
# The last fault strikes at the latest when this much of the sweep is trained: there must be something to strike.
LAST = 0.7
KILLED = 0.2


@dataclass
class Report:
    """What happened: counts of faults, of launches that the sweep needed, of jobs queued again and of attempts."""

    faults: Counter[str]
    relaunches: int
    requeues: int
    deaths: int
    attempts: int
    nodes: int
    runs: int
    status_checks: int
    seconds: float
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        counts = [*sorted(self.faults.items()), ("faults in all", sum(self.faults.values()))]
        counts += [
            ("launches beside those killed", self.relaunches),
            ("jobs queued again by Slurm or themselves", self.requeues),
            ("deaths counted by the jobs", self.deaths),
            (f"attempts at {self.nodes} nodes of {self.runs} runs", self.attempts),
            ("status compared with the truth", self.status_checks),
            ("seconds", round(self.seconds)),
            ("wrong", len(self.wrong)),
        ]
        return "\n".join([*(f"{count:6d}  {name}" for name, count in counts), *self.wrong])


def schedule(chains: int, dice: Random, extra: Sequence[Fault] = ()) -> list[tuple[float, Fault]]:
    """Faults with the progress of the sweep from which they are looked for: a fifth of the jobs are killed, every
    other fault comes at least once. The launchers' come first of all."""
    kinds = [faults.job_killed] * math.ceil(KILLED * chains)
    kinds += [faults.preempted, faults.node_failed, faults.daemon_restarted, faults.batch_killed]
    kinds += [faults.checkpoint_truncated, faults.disk_filled, *extra]
    dice.shuffle(kinds)
    return list(zip(sorted(dice.uniform(0, LAST) for _ in kinds), kinds, strict=True))


def conduct(scene: Scene, plan: Sequence[tuple[float, Fault]], dice: Random, limit: float) -> Report:
    """Launch the sweep, let the faults of `plan` strike, launch again whatever is left, until all is done.

    Args:
        limit: seconds after which it is given up.
    """
    began, relaunches, checks = time.monotonic(), 0, 0
    restarts: dict[str, int] = {}
    wrong: list[str] = []
    launchers = [*[faults.launcher_killed] * 3, faults.two_launchers]
    active = [_one_after_another([fault(scene, dice) for fault in launchers])]
    due = list(plan)
    launcher: subprocess.Popen[bytes] | None = None
    idle = 0  # Faults that were under way when all was done, as the last look saw it.
    while active or due or not scene.is_finished():
        if time.monotonic() - began > limit:
            waiting = [fault.__name__ for _, fault in due]
            wrong.append(f"not done after {limit:.0f} s: {len(active)} faults under way, to come: {waiting}")
            break
        share = scene.progress()
        while due and share >= due[0][0] and "two launchers at once" in scene.ledger.faults:
            active.append(due.pop(0)[1](scene, dice))
        active = [fault for fault in active if next(fault, fault) is not fault]
        queue = scene.queue()
        for job in queue:
            restarts[job.id] = max(job.restarts, restarts.get(job.id, 0))
        wrong += onlooker.twins(queue)
        is_quiet = not any(job.state in LIVE for job in queue) and "two launchers at once" in scene.ledger.faults
        if launcher is not None and launcher.poll() is not None:
            scene.ledger.say(f"launched again: exit status {launcher.returncode}")
            launcher = None
        elif is_quiet and launcher is None and not (scene.store.root / faults.BALLAST).exists():
            found = onlooker.wrong_statuses(scene)
            wrong, checks = wrong + found, checks + 1
            if not all(map(scene.is_done, scene.plan.nodes)):
                launcher, relaunches = scene.launch(), relaunches + 1
            elif due or idle == len(active) > 0:
                left = [*(fault.__name__ for _, fault in due), *(fault.__name__ for fault in active)]
                wrong.append(f"the sweep was over before these struck: {', '.join(left)}")
                break
            idle = len(active)
        elif dice.random() < 0.02:
            wrong, checks = wrong + onlooker.wrong_statuses(scene), checks + 1
        time.sleep(LOOK_SECONDS)
    wrong += onlooker.wrong_statuses(scene)
    wrong += onlooker.wrong_records(scene)
    wrong += [f"job {job} did not come back by itself" for job in scene.ledger.requeued if not restarts.get(job)]
    return Report(
        faults=scene.ledger.faults,
        relaunches=relaunches,
        requeues=sum(restarts.values()),
        deaths=sum(
            read_attempts(attempts_path(scene.store, scene.plan.sweep, chain.name)).count
            for chain in scene.plan.chains()
        ),
        attempts=sum(
            max((row["attempt"] for row in read(scene.store.records(node))), default=0) for node in scene.plan.nodes
        ),
        nodes=len(scene.plan.nodes),
        runs=len(scene.plan.runs),
        status_checks=checks + 1,
        seconds=time.monotonic() - began,
        wrong=wrong,
    )


def _one_after_another(parts: Sequence[Iterator[None]]) -> Iterator[None]:
    for part in parts:
        yield from part


@contextmanager
def slurm(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A Slurm of four nodes in `folder`; `environment` gets what its clients need."""
    environment |= {"SLURM_CONF": str(folder / "slurm.conf"), "SLURM_ARRAY": "10"}
    environment["SLURM_PORT"] = str(int(environment.get("SLURM_PORT", "17817")) + 150)  # beside those of tests/slurm
    subprocess.run([CLUSTER, "start", folder], check=True, timeout=60, env=environment)
    try:
        yield
    finally:
        subprocess.run([CLUSTER, "stop", folder], check=True, timeout=120, env=environment)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own at `folder`. Raises PermissionError where none may be mounted."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        raise PermissionError("no tmpfs may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
