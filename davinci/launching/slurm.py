"""Chains as Slurm jobs, through submitit: submit, say how to follow, return."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from davinci.config import Cluster, Tracking
from davinci.errors import UserError
from davinci.launching.job import perform
from davinci.launching.local import thread_environment
from davinci.launching.progress import Display
from davinci.planning.plan import Plan
from davinci.store import Store, read_json, write_json

# A chain may meet its time limit as often as it needs to: each time it checkpoints and is queued again.
TIMEOUTS_ALLOWED = 1000
# Slurm warns this long before it kills: enough to finish a step and write a checkpoint.
WARNING_SECONDS = 90


class ChainJob:
    """What submitit pickles: the job file's path and nothing else."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self) -> None:
        """Run the chain; an exception fails the Slurm job, so that chains after it do not start."""
        # submitit calls `checkpoint` from a signal handler in this thread, which must then be free to wait for the step
        # to end: the work happens in another.
        self._stop = threading.Event()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._thread.join()
        if self._failure is not None:
            raise RuntimeError(self._failure)

    def _work(self) -> None:
        self._failure = "the job ended without an outcome; see its log"
        outcome = perform(Path(self._path), lambda event: None, self._stop.is_set)
        while outcome.state == "stopped" and not self._stop.is_set():  # It lost a lock: see who has it.
            outcome = perform(Path(self._path), lambda event: None, self._stop.is_set)
        self._failure = None if outcome.state == "done" else f"{outcome.error or outcome.state} (log: {outcome.log})"

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called before a preemption or the time limit: write the state, then be queued again."""
        self._stop.set()
        self._thread.join(timeout=WARNING_SECONDS * 0.7)
        return submitit.helpers.DelayedSubmission(ChainJob(self._path))


def submit(
    plan: Plan,
    store: Store,
    cluster: Cluster,
    places: Mapping[str, Cluster],
    tracking: Tracking,
    order: Sequence[str],
    jobs: Mapping[str, Path],
    display: Display,
) -> None:
    """Submit a job a chain, each after the one it starts from; chains still queued from before are left alone.

    Args:
        cluster: says how many jobs may run at once.
        places: the cluster settings of each chain.
        order: chains to run, parents before children, the most urgent first.
        jobs: the job file of each.

    Raises:
        UserError: there is no Slurm here, or it refused a job.
    """
    folder = store.jobs(plan.sweep) / "slurm"
    book = store.jobs(plan.sweep) / "slurm.json"
    known: dict[str, str] = read_json(book) if book.is_file() else {}
    after = {chain.name: chain.after for chain in plan.chains()}
    try:
        live = _live_jobs()
        ids = {name: job for name, job in known.items() if job in live}
        fresh: list[str] = []
        for name in order:
            if name in ids:
                continue
            lane = fresh[-cluster.max_parallel] if len(fresh) >= cluster.max_parallel else None
            executor = _executor(
                folder, places[name], f"{plan.sweep}/{name}", _dependency(ids.get(after[name] or ""), lane)
            )
            ids[name] = executor.submit(ChainJob(str(jobs[name]))).job_id
            fresh.append(ids[name])
            write_json(book, ids)
        if fresh and tracking.mode != "disabled":
            last = _executor(folder, cluster, f"{plan.sweep}/wandb", f"afterany:{':'.join(ids.values())}", gpus=False)
            command = [sys.executable, "-m", "davinci", "sync", plan.sweep, "--store", str(store.root)]
            last.submit(subprocess.check_call, command)
    except (RuntimeError, OSError, FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"cluster=slurm: {said[0]} (cluster=local runs on this machine)") from None
    waiting = len(ids) - len(fresh)
    display.say(
        f"submitted {len(fresh)} jobs"
        + (f" ({fresh[0]} to {fresh[-1]})" if fresh else "")
        + (f"; {waiting} were queued already" if waiting else "")
    )
    display.say(f"follow: squeue --jobs {','.join(ids.values())}")
    display.say(f"        {Path(sys.executable).name} -m davinci status {plan.sweep} --store {store.root}")
    display.say(f"logs:   {store.jobs(plan.sweep)}")


def _dependency(parent: str | None, lane: str | None) -> str | None:
    """Slurm's dependency: after success of the parent, and after the job whose place this one takes.

    With every job waiting for the one `max_parallel` before it, at most `max_parallel` run at a time.
    """
    parts = [f"afterok:{parent}"] if parent else []
    parts += [f"afterany:{lane}"] if lane else []
    return ",".join(parts) or None


def _executor(
    folder: Path, cluster: Cluster, name: str, dependency: str | None, gpus: bool = True
) -> submitit.SlurmExecutor:
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=TIMEOUTS_ALLOWED)
    executor.update_parameters(**wanted(cluster, name, dependency, gpus))
    return executor


def wanted(cluster: Cluster, name: str, dependency: str | None, gpus: bool = True) -> dict[str, Any]:
    """What a job asks Slurm for, in submitit's words."""
    parameters: dict[str, Any] = {
        "job_name": name,
        "time": cluster.time_minutes,
        "cpus_per_task": cluster.cpus_per_task,
        "mem": f"{cluster.memory_gb}GB",
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "gpus_per_node": cluster.gpus_per_node if gpus and cluster.gpus_per_node else None,
        "dependency": dependency,
        "signal_delay_s": WARNING_SECONDS,
        "setup": [f"export {key}={value}" for key, value in thread_environment(cluster.threads).items()],
        # A job whose parent failed is cancelled instead of waiting for ever.
        "additional_parameters": {"kill_on_invalid_dep": "yes"},
    }
    return {key: value for key, value in parameters.items() if value is not None}


def _live_jobs() -> set[str]:
    """Ids of this user's jobs that are queued or running."""
    found = subprocess.run(["squeue", "--noheader", "--me", "--format=%A"], capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"squeue failed: {found.stderr}")
    return set(found.stdout.split())
