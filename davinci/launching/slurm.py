"""Chains as Slurm jobs, through submitit: see what is queued, submit the rest, say how to follow, return.

The chains that start from the same chain are one array that depends on it alone; so are all that start from nothing.
Where evaluation is separate, what evaluates an array's chains is an array too, each task after the one it belongs to.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from davinci.config import Cluster, Tracking
from davinci.errors import UserError
from davinci.launching import memory, queued
from davinci.launching.attempts import attempts_path
from davinci.launching.job import Job, job_path, read_job
from davinci.launching.local import thread_environment
from davinci.launching.lock import Lock
from davinci.launching.mirror import command
from davinci.launching.mirror_log import log_path as mirror_log
from davinci.launching.progress import Display
from davinci.launching.slurm_queue import queue
from davinci.launching.snapshot import code_folder, snapshot
from davinci.launching.tasks import EVALUATION
from davinci.launching.wrapper import ChainJob, warning_seconds
from davinci.planning.plan import Plan
from davinci.store import Store, write_json

# Only submitit's own handler counts timeouts, and it works for no longer than a job takes to start.
TIMEOUTS_ALLOWED = 1000
# How long the ranks of a job outlive the first of them to end.
RANKS_SECONDS = 60
# Memory of the job that mirrors to W&B.
MIRROR_GB = 4
# Tasks of an array, where Slurm does not say how many it takes.
ARRAY_SIZE = 1000

# Writes the job files of chains, to be run by a snapshot of the program.
Freeze = Callable[[Sequence[str], str], Mapping[str, Job]]


def submit(
    plan: Plan, store: Store, tracking: Tracking, order: Sequence[str], display: Display, freeze: Freeze
) -> None:
    """Submit the chains that are neither queued nor running.

    Args:
        order: chains to run, parents before children, the most urgent first.

    Raises:
        UserError: there is no Slurm here, or it refused a job.
    """
    with _errors_said(), Lock(store.jobs(plan.sweep) / "submitting"):
        live = queued.live(plan, store, order)
        fresh = [name for name in order if name not in live]
        jobs = freeze(fresh, snapshot(store)) if fresh else {}
        for name in fresh:
            attempts_path(store, plan.sweep, name).unlink(missing_ok=True)
        ids = enqueue(store, plan.sweep, [jobs[name] for name in fresh], live)
        is_mirrored = tracking.mode == "disabled" or _mirror(
            read_job(job_path(store, plan.sweep, order[0])), store, tracking, ids, None if live else ids[order[0]]
        )
    new, waiting = [ids[name] for name in fresh], len(order) - len(fresh)
    display.say(
        f"submitted {len(new)} jobs"
        + (f" ({new[0]} to {new[-1]})" if new else "")
        + (f"; {waiting} were queued already" if waiting else "")
    )
    where = shlex.quote(str(store.root))
    if not is_mirrored:
        later = f"python -m davinci sync {plan.sweep} --watch --store {where}"
        display.say(f"Slurm took no job that mirrors the sweep to W&B; where there is a network: {later}", "yellow")
    display.say(f"follow: squeue --jobs {','.join(_arrays(ids))}")
    display.say(f"        {Path(sys.executable).name} -m davinci status {plan.sweep} --store {where}")
    display.say(f"logs:   {store.jobs(plan.sweep)}")


def submit_beside(
    sweep: str, store: Store, make: Callable[[str], Sequence[Job]], write: Callable[[Sequence[Job]], None]
) -> tuple[dict[str, str], int]:
    """Submit jobs that are no part of a plan, unless they are queued already.

    Args:
        sweep: whose book has them.
        store: where that is.
        make: the jobs, on a snapshot of the program.
        write: writes the files of those that are submitted.

    Returns:
        The ids of all by their names, and how many are new.
    """
    with _errors_said(), Lock(store.jobs(sweep) / "submitting"):
        jobs = make(snapshot(store))
        book = queued.read_book(store, sweep)
        live = queue([book[job.chain] for job in jobs if job.chain in book])
        fresh = [job for job in jobs if book.get(job.chain) not in live]
        write(fresh)
        for job in fresh:
            attempts_path(store, sweep, job.chain).unlink(missing_ok=True)
        ids = enqueue(store, sweep, fresh, book)
    return {job.chain: ids[job.chain] for job in jobs}, len(fresh)


def resubmit(job: Job, store: Store) -> None:
    """From within a job that cannot be requeued: submit it as a new one, and anew what waits for it."""
    with _errors_said(), Lock(store.jobs(job.sweep) / "submitting"):
        book = queued.read_book(store, job.sweep)
        known = {name: read_job(job_path(store, job.sweep, name)) for name in book}
        behind = [job]
        for one in behind:  # It grows: children after their parents.
            behind.extend(child for child in known.values() if child.after == one.chain)
        names = {one.chain for one in behind}
        enqueue(store, job.sweep, behind, {name: old for name, old in book.items() if name not in names})


def enqueue(store: Store, sweep: str, jobs: Sequence[Job], ids: Mapping[str, str]) -> dict[str, str]:
    """Submit `jobs`, parents before children, beside those with `ids`; returns the ids of all, noted in the book."""
    ids = dict(ids)
    # What evaluates is grouped as what trains is, whose ids it needs: that group came first.
    groups: dict[tuple[str, Cluster, Cluster], list[Job]] = {}
    new = {job.chain: job for job in jobs}
    for job in jobs:
        trains = new.get(job.after or "") if job.task == "evaluate" else None
        start = job if trains is None else trains
        parent = start.after if start.after in new or start.after in ids else None
        title = (parent or "roots") + (EVALUATION if trains else "")
        groups.setdefault((title, start.cluster, job.cluster), []).append(job)
    size = _array_size() if any(len(group) > 1 for group in groups.values()) else 1
    with _no_job_around():
        for (title, _, cluster), group in groups.items():
            for after, chunk in _arrays_of(group, ids, size):
                name = f"{sweep}/{chunk[0].chain if len(chunk) == 1 else title}"
                executor = _executor(store, sweep, chunk[0], wanted(cluster, name, after))
                calls = [ChainJob(str(job_path(store, sweep, job.chain))) for job in chunk]
                tasks = executor.submit_array(calls)
                ids.update({job.chain: task.job_id for job, task in zip(chunk, tasks, strict=True)})
                write_json(queued.book_path(store, sweep), ids)
    return ids


def _arrays_of(group: Sequence[Job], ids: Mapping[str, str], size: int) -> Iterator[tuple[str | None, list[Job]]]:
    """`group` in arrays of at most `size` tasks, each with what it depends on, in Slurm's words.

    Jobs that come after the tasks 0, 1, … of one array are one array, in the same order: ``aftercorr``.
    """
    behind: dict[str, list[Job]] = {}
    for job in group:
        behind.setdefault(ids.get(job.after or "", ""), []).append(job)
    by_array: dict[str, dict[int, Job]] = {}
    for parent, jobs in behind.items():
        array, _, task = parent.partition("_")
        if task and len(jobs) == 1:
            by_array.setdefault(array, {})[int(task)] = jobs[0]
        else:
            for first in range(0, len(jobs), size):
                yield f"afterok:{parent}" if parent else None, jobs[first : first + size]
    for array, found in by_array.items():
        in_order = [found[task] for task in sorted(found)]
        if len(found) > 1 and sorted(found) == list(range(len(found))):
            yield f"aftercorr:{array}", in_order
        else:
            yield from ((f"afterok:{ids[str(job.after)]}", [job]) for job in in_order)


def wanted(cluster: Cluster, name: str, after: str | None, gpus: bool = True) -> dict[str, Any]:
    """What a job asks Slurm for, in submitit's words. `after` is what it depends on, in Slurm's: ``afterok:17``."""
    # A job whose parent failed is cancelled instead of waiting for ever; one whose node failed is queued again.
    additional: dict[str, Any] = {"kill-on-invalid-dep": "yes", "requeue": True}
    if cluster.license and gpus:
        additional["licenses"] = cluster.license
    parameters: dict[str, Any] = {
        "job_name": name,
        "time": cluster.time_minutes,
        "cpus_per_task": cluster.cpus_per_task,
        "mem": f"{cluster.memory_gb}GB",
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "gpus_per_node": cluster.gpus_per_node if gpus and cluster.gpus_per_node else None,
        "dependency": after,
        "array_parallelism": cluster.max_parallel,
        "signal_delay_s": warning_seconds(cluster.time_minutes),
        "setup": [f"export {key}={value}" for key, value in thread_environment(cluster.threads).items()],
        "additional_parameters": additional,
    }
    if gpus and cluster.ranks > 1:
        parameters |= {"nodes": cluster.nodes, "ntasks_per_node": cluster.tasks_per_node}
        # All ranks end together, or one is lost: then the others are not left waiting for it.
        parameters["srun_args"] = [f"--wait={RANKS_SECONDS}"]
    return {key: value for key, value in parameters.items() if value is not None}


def _executor(store: Store, sweep: str, job: Job, parameters: Mapping[str, Any]) -> submitit.SlurmExecutor:
    """For jobs that run the same snapshot as `job`, and are looked after when they end."""
    kills = f"export {memory.BEFORE}=$(sed -n 's/^oom_kill //p' /proc/vmstat 2>/dev/null)"
    setup = [*parameters["setup"], kills]
    after = ["davinci.launching.wrapper", str(store.jobs(sweep))]
    return _looked_after(store, sweep, job.code, after, comment=queued.comment(store), **{**parameters, "setup": setup})


def _looked_after(
    store: Store, sweep: str, code: str | None, after: Sequence[str], **parameters: Any
) -> submitit.SlurmExecutor:
    """For jobs of the snapshot `code` that end, unless all went well, in the module and with the arguments `after`,
    and the exit status."""
    executor = submitit.SlurmExecutor(folder=store.jobs(sweep) / "slurm", max_num_timeout=TIMEOUTS_ALLOWED)
    folder = shlex.quote(str(code_folder(store, code))) if code else ""
    path = [f"export PYTHONPATH={folder}${{PYTHONPATH:+:$PYTHONPATH}}"] if code else []
    executor.update_parameters(
        **{**parameters, "setup": [*parameters["setup"], *path]},
        teardown=[
            "status=$?",
            "[ $status -eq 0 ] && exit 0",
            f"exec {shlex.join([sys.executable, '-m', *after])} $status",
        ],
    )
    return executor


def _mirror(job: Job, store: Store, tracking: Tracking, ids: Mapping[str, str], first: str | None) -> bool:
    """A job that mirrors the sweep of `job` to W&B, in place of any before; whether Slurm took it.

    Online it starts with the job `first` (None: at once) and ends with the sweep; offline it starts when all have
    ended. It takes a core, no accelerator, and none of the sweep's places. It bears the comment of the sweep's jobs and
    is in no book, so that the next launch cancels it before it submits another (`queued.live`).
    """
    start = f"after:{first}" if first else None
    if tracking.mode == "offline":
        start = f"afterany:{':'.join(_arrays(ids))}"
    place = job.cluster.model_copy(
        update={"cpus_per_task": 1, "threads": 1, "memory_gb": min(job.cluster.memory_gb, MIRROR_GB)}
    )
    notes = attempts_path(store, job.sweep, "wandb")
    notes.unlink(missing_ok=True)
    executor = _looked_after(
        store,
        job.sweep,
        job.code,
        ["davinci.launching.mirror_job", str(notes)],
        comment=queued.comment(store),
        **wanted(place, f"{job.sweep}/wandb", start, gpus=False),
    )
    run = shlex.join(command(job.sweep, store, "watch"))
    log = shlex.quote(str(mirror_log(store, job.sweep)))
    try:
        with _no_job_around():
            executor.submit(os.execv, "/bin/sh", ["sh", "-c", f"exec {run} >>{log} 2>&1"])
    except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError):
        return False
    return True


def _arrays(ids: Mapping[str, str]) -> list[str]:
    """Ids without those of array tasks."""
    return list(dict.fromkeys(job.partition("_")[0] for job in ids.values()))


def _array_size() -> int:
    """How many tasks an array may have (Slurm's MaxArraySize)."""
    with suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True, timeout=60)
        if found := re.search(r"MaxArraySize\s*=\s*(\d+)", shown.stdout):
            return max(1, int(found[1]))
    return ARRAY_SIZE


@contextmanager
def _no_job_around() -> Iterator[None]:
    """Hide the variables of a job that this process may itself be part of: sbatch would hand them on."""
    hidden = {key: os.environ.pop(key) for key in list(os.environ) if re.match(r"(SLURM|SBATCH)_(?!CONF$)", key)}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def _errors_said() -> Iterator[None]:
    """Have one line say what Slurm's commands said; submitit prints it all."""
    try:
        with redirect_stderr(io.StringIO()):
            yield
    except (RuntimeError, OSError, FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
        raise UserError(f"cluster=slurm: {_said(error)} (cluster=local runs on this machine)") from None


def _said(error: Exception) -> str:
    """What a command of Slurm said, on one line: the cause often stands below the first."""
    if isinstance(error, FileNotFoundError) and error.filename and "/" not in str(error.filename):
        return f"{error.filename}: not found; Slurm's commands must be on this machine's PATH"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[:1] + lines[-1:])) or type(error).__name__
