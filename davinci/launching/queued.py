"""Which chains of a sweep live in Slurm, as far as the store, squeue and (where there is one) sacct tell.

Not being listed is no proof of death: a controller that was just restarted, or that forgets finished jobs early, lists
less than there is. It is asked again, and then the heartbeat of the chain's locks decides.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from davinci.launching.lock import BEAT_SECONDS, beats
from davinci.launching.tasks import tasks
from davinci.planning.plan import Plan
from davinci.store import Store, read_json

# A job submitted less than so long ago is not given up after one look at squeue, which a controller that was just
# restarted answers with less than there is.
GRACE_SECONDS = 60.0
# For how long it is looked for.
SEARCH_SECONDS = 5.0
# How long a job may take to leave the state in which Slurm cleans up after it.
COMPLETING_SECONDS = 10.0

_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}


def book_path(store: Store, sweep: str) -> Path:
    """The book of job ids (``12``, of an array's task ``12_3``) by chain."""
    return store.jobs(sweep) / "slurm.json"


def read_book(store: Store, sweep: str) -> dict[str, str]:
    path = book_path(store, sweep)
    return {chain: str(job) for chain, job in read_json(path).items()} if path.is_file() else {}


def comment(store: Store) -> str:
    """What the jobs of a store bear as their comment."""
    return f"davinci {store.root}"


def live(plan: Plan, store: Store, order: Sequence[str]) -> dict[str, str]:
    """Ids of the chains that are queued or running and can still get to run; those of `order` (parents before children)
    are looked at closely, the others as Slurm lists them.

    Jobs of the sweep that are in no book, since their launcher died in the middle, are cancelled.

    Raises:
        RuntimeError: Slurm does not answer.
    """
    book = read_book(store, plan.sweep)
    states = _states(plan.sweep, store, book)
    chains = {task.name: task for task in tasks(plan)}
    wanted = set(order)
    found = {name: job for name, job in book.items() if name not in wanted and states.get(job, "FAILED") not in _ENDED}
    doomed = []
    for name in order:
        if name not in book:
            continue
        job, after = book[name], chains[name].after
        state = states.get(job)
        if state is None:
            if not any(beats(store.node(node), 2.5 * BEAT_SECONDS) for node in chains[name].nodes):
                continue
        elif state in _ENDED:
            continue
        elif state == "PENDING" and after in wanted and after not in found:
            doomed.append(job)  # What it waits for is over; Slurm is about to cancel it.
            continue
        found[name] = job
    if doomed:
        subprocess.run(["scancel", *doomed], check=False, capture_output=True)
    return found


def _states(sweep: str, store: Store, book: Mapping[str, str]) -> dict[str, str]:
    """Slurm's word for the state of each job that it knows."""
    began = time.monotonic()
    known = set(book.values())
    young = {job for job in known if _age(job, store, sweep) < GRACE_SECONDS}
    while True:
        found, strangers = _squeue(sweep, store, known)
        waited = time.monotonic() - began
        is_completing = any(found.get(job) == "COMPLETING" for job in known) and waited < COMPLETING_SECONDS
        if not is_completing and (found.keys() >= young or waited > SEARCH_SECONDS):
            break
        time.sleep(0.5)
    if strangers:
        subprocess.run(["scancel", *strangers], check=False, capture_output=True)
    missing = known - found.keys()
    return found | _sacct(missing) if missing else found


def _squeue(sweep: str, store: Store, known: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """States of the known jobs; and live jobs of the sweep and store beside them."""
    command = ["squeue", "--noheader", "--me", "--array", "--states=all", "--format=%i|%T|%j|%k"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if listed.returncode:
        raise RuntimeError(f"squeue failed: {listed.stderr.strip()}")
    found, strangers = {}, []
    for line in listed.stdout.splitlines():
        job, state, name, said = line.split("|", 3)
        if job in known:
            found[job] = state
        elif said == comment(store) and name.startswith(f"{sweep}/") and state not in {*_ENDED, "COMPLETING"}:
            strangers.append(job)
    return found, strangers


def _sacct(jobs: Collection[str]) -> dict[str, str]:
    """States of the jobs that accounting knows to be over; empty where there is none.

    What it has as running while the queue does not list it may be a record that nobody closed: no proof of life.
    """
    arrays = dict.fromkeys(job.partition("_")[0] for job in sorted(jobs))  # Shorter than their thousands of tasks.
    command = ["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(arrays)]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found = {}
    for line in told.stdout.splitlines():
        job, _, state = line.partition("|")
        word = state.partition(" ")[0]  # "CANCELLED by 0"
        if job in jobs and word in _ENDED:
            found[job] = word
    return found


def _age(job: str, store: Store, sweep: str) -> float:
    """Seconds since a job was submitted."""
    try:
        return time.time() - (store.jobs(sweep) / "slurm" / f"{job}_submitted.pkl").stat().st_mtime
    except FileNotFoundError:
        return GRACE_SECONDS
