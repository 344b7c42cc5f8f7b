"""The faults. Each is a generator that looks at the scene every time it is resumed and strikes once it sees what it
waits for; it ends when it has put back what it broke, and what it did is in the scene's ledger."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

from scene import Scene, SlurmJob, Working

from davinci.launching.lock import holder

Fault = Callable[[Scene, Random], Iterator[None]]
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
BALLAST = "ballast"


def launcher_killed(scene: Scene, dice: Random) -> Iterator[None]:
    """SIGKILL a launcher in the middle: when it has frozen so many jobs, or submitted some and noted none."""
    count = len(scene.plan.chains())
    look, goal = dice.choice([(scene.frozen, dice.randint(1, count)), (scene.submitted, scene.submitted() + 1)])
    launcher = scene.launch()
    while launcher.poll() is None:  # A yield would be too slow: this is about milliseconds.
        if look() >= goal and holder(_submitting(scene)) is not None:
            launcher.kill()
            launcher.wait()
            what = f"with {scene.frozen()} jobs frozen and {scene.submitted()} submitted"
            scene.ledger.note("launcher killed", (chain.name for chain in scene.plan.chains()), what)
            return
    yield


def two_launchers(scene: Scene, dice: Random) -> Iterator[None]:
    """Two launchers at once; the one that is first to submit is killed while it does."""
    both = [scene.launch(), scene.launch()]
    while all(one.poll() is None for one in both):
        owner = holder(_submitting(scene))
        first = next((one for one in both if owner is not None and one.pid == owner.pid), None)
        if first is not None:
            first.kill()
            first.wait()
            scene.ledger.note("launcher killed", (chain.name for chain in scene.plan.chains()), "one of two at once")
    scene.ledger.note("two launchers at once", (chain.name for chain in scene.plan.chains()), "both started")
    while any(one.poll() is None for one in both):
        yield
    assert 0 in {one.returncode for one in both}, "both of two launchers failed"


def job_killed(scene: Scene, dice: Random) -> Iterator[None]:
    """SIGKILL the process that trains, as the kernel does when memory runs out; each time another chain's."""
    while True:
        fresh = [one for one in scene.working() if one.chain not in scene.ledger.killed]
        if fresh and (held := _held(scene, dice.choice(fresh))) is not None:
            os.kill(held.pid, signal.SIGKILL)
            scene.ledger.killed.add(held.chain)
            scene.ledger.requeued |= {job.id for job in _running(scene) if job.chain == held.chain}
            scene.ledger.note("job killed", [held.chain])
            return
        yield


def batch_killed(scene: Scene, dice: Random) -> Iterator[None]:
    """SIGKILL a whole job, its batch script too: nobody is left to queue it again."""
    while True:
        working = scene.working()
        victim = dice.choice(working) if working else None
        job = victim and next((one for one in _running(scene) if one.chain == victim.chain), None)
        if victim is not None and job is not None and _held(scene, victim) is not None:
            subprocess.run(["scancel", "--full", "--signal=KILL", job.id], check=True)
            scene.ledger.note("batch script killed", [victim.chain])
            return
        yield


def preempted(scene: Scene, dice: Random) -> Iterator[None]:
    """A job of the urgent partition takes a whole node on which something trains."""
    while True:
        training = {one.chain for one in scene.working()}
        hosts = sorted({job.host for job in _running(scene) if job.chain in training})
        if hosts:
            host = dice.choice(hosts)
            there = [job for job in _running(scene) if job.host == host]
            urgent = ["srun", "--quiet", "-p", "urgent", "-w", host, "-c4", "--mem=3000", "true"]
            with subprocess.Popen(urgent, cwd="/") as process:
                while process.poll() is None:
                    yield
            assert process.returncode == 0
            again = {job.id for job in scene.queue() if job.restarts > _restarts(there, job.id)}
            hit = [job for job in there if job.id in again and job.chain is not None]
            if hit:
                scene.ledger.requeued |= again
                scene.ledger.note("job preempted", [job.chain for job in hit if job.chain], host, count=len(hit))
                return
        yield


def node_failed(scene: Scene, dice: Random) -> Iterator[None]:
    """Power goes from a node on which something trains; its slurmd starts again when Slurm has taken the jobs off."""
    while True:
        training = {one.chain for one in scene.working()}
        hosts = sorted({job.host for job in _running(scene) if job.chain in training})
        if hosts:
            host = dice.choice(hosts)
            there = [job for job in _running(scene) if job.host == host]
            scene.on_cluster("fail", host)
            before = {job.id for job in there}
            # What came to its end in the same moment needs no second start.
            lost = [job for job in scene.queue() if job.id in before and job.state not in ("COMPLETED", "FAILED")]
            scene.ledger.requeued |= {job.id for job in lost}
            scene.ledger.note("slurmd stopped with its jobs", [job.chain for job in there if job.chain], host)
            while any(job.host == host for job in _running(scene)):
                yield
            scene.on_cluster("recover", host)
            return
        yield


def daemon_restarted(scene: Scene, dice: Random) -> Iterator[None]:
    """A slurmd dies and is started again; what runs on its node goes on."""
    while True:
        hosts = sorted({job.host for job in _running(scene) if job.chain in {one.chain for one in scene.working()}})
        if hosts:
            host = dice.choice(hosts)
            os.kill(int((scene.cluster / f"slurmd.{host}.pid").read_text()), signal.SIGKILL)
            yield
            scene.on_cluster("recover", host)
            scene.ledger.note("slurmd restarted", [], host)
            return
        yield


def checkpoint_truncated(scene: Scene, dice: Random) -> Iterator[None]:
    """The newest checkpoint of a training loses half of a file, and its process dies."""
    while True:
        working = [one for one in scene.working() if _checkpoints(scene, one.node)]
        held = _held(scene, dice.choice(working)) if working else None
        if held is not None:
            found = _checkpoints(scene, held.node)
            if found:
                path = found[-1] / dice.choice(FILES)
                os.truncate(path, path.stat().st_size // 2)
                os.kill(held.pid, signal.SIGKILL)
                scene.ledger.requeued |= {job.id for job in _running(scene) if job.chain == held.chain}
                scene.ledger.note("checkpoint truncated", [held.chain], f"{held.node}: {path.name} at {found[-1].name}")
                return
            os.kill(held.pid, signal.SIGCONT)
        yield


def parent_truncated(scene: Scene, dice: Random) -> Iterator[None]:
    """The finished weights of a trunk lose half, before all of its branches have started from them."""
    while True:
        for chain in scene.plan.chains():
            behind = [one for one in scene.plan.chains() if one.after == chain.name]
            fresh = [one for one in behind if not scene.store.records(one.nodes[0]).exists()]
            if fresh and scene.is_done(chain.nodes[-1]):
                node = chain.nodes[-1]
                path = scene.store.checkpoint(node, scene.plan.nodes[node].end) / "model.safetensors"
                os.truncate(path, path.stat().st_size // 2)
                scene.ledger.damaged.add(node)
                scene.ledger.note("trunk's weights truncated", [chain.name, *(one.name for one in behind)], node)
                return
        yield


def disk_filled(scene: Scene, dice: Random) -> Iterator[None]:
    """The store's file system fills up while jobs train, and is freed when one has failed of it."""
    while not scene.working():
        yield
    open_chains = [one.name for one in scene.plan.chains() if not all(map(scene.is_done, one.nodes))]
    ended = {job.id for job in scene.queue() if job.state == "FAILED"}
    ballast = scene.store.root / BALLAST
    _fill(ballast)
    scene.ledger.note("disk filled", open_chains, f"{ballast.stat().st_size / 1e6:.0f} MB of ballast")
    while not {job.id for job in scene.queue() if job.state == "FAILED"} - ended:
        _fill(ballast)  # What a job removes is not to be had either.
        yield
    ballast.unlink()
    scene.ledger.say("disk freed")


def _fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file, suppress(OSError):
        for size in (1 << 16, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def _submitting(scene: Scene) -> Path:
    return scene.store.jobs(scene.plan.sweep) / "submitting"


def _running(scene: Scene) -> list[SlurmJob]:
    return [job for job in scene.queue() if job.state == "RUNNING" and job.chain in scene.chain_of.values()]


def _restarts(jobs: list[SlurmJob], name: str) -> int:
    return next((job.restarts for job in jobs if job.id == name), 1 << 30)


def _held(scene: Scene, victim: Working) -> Working | None:
    """Stop the victim's process; None, and it goes on, where it is no longer in the middle of that node."""
    try:
        os.kill(victim.pid, signal.SIGSTOP)
    except ProcessLookupError:
        return None
    if victim in scene.working():
        return victim
    with suppress(ProcessLookupError):
        os.kill(victim.pid, signal.SIGCONT)
    return None


def _checkpoints(scene: Scene, node: str) -> list[Path]:
    """The node's own checkpoints that stand, the newest last."""
    folder = scene.store.checkpoint(node, 0).parent
    return sorted(path.parent for path in folder.glob("[0-9]*/state.json"))
