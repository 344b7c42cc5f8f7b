"""A chain as a Slurm job: what runs on the node, and what decides what comes after it.

The batch script starts `ChainJob` through srun, one process a rank, and looks at how that ended. Anything but success
goes to ``python -m davinci.launching.wrapper JOBS STATUS``, which queues the job again if that may help. So it does not
matter how the processes came to their end: they may be killed with their step.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from davinci.launching import attempts, memory, this_job
from davinci.launching.job import Job, Outcome, failure_path, job_path, log_path, perform, read_job
from davinci.launching.lock import WaitAbandoned
from davinci.launching.ranks import together
from davinci.launching.slots import Slot
from davinci.store import Store, read_json, write_json

if TYPE_CHECKING:
    from davinci.training.distributed import Ranks

# Exit statuses; any other is a death.
DONE, FAILED, STOPPED = 0, 1, 75  # 75: EX_TEMPFAIL
# Slurm warns this long before it kills for time: enough to finish a step and write a checkpoint.
WARNING_SECONDS = 90
# By how much Slurm's warnings may come early, and how long a job takes to end after that.
EARLY_SECONDS = 60
# A job may start before the launcher has noted its id.
BOOK_SECONDS = 15.0

# A disk or a quota that is full: to start again would end the same way.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def warning_seconds(time_minutes: int) -> int:
    """How long before its time limit a job is told to stop."""
    return min(WARNING_SECONDS, 20 * time_minutes)


class ChainJob:
    """What submitit pickles: the job file's path and nothing else.

    It answers signals itself. submitit would take each one for a timeout in a job of less than ten minutes.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self) -> None:
        """Run the chain. Exits with `FAILED` or `STOPPED`; returning means it is done."""
        stop, ended = threading.Event(), threading.Event()

        def on_signal(number: int, frame: FrameType | None) -> None:
            stop.set()

        for number in _SIGNALS:
            signal.signal(number, on_signal)
        job = read_job(Path(self._path))
        notes = attempts.attempts_path(Store(Path(job.store)), job.sweep, job.chain)
        is_first = os.environ.get("SLURM_PROCID", "0") == "0"
        if is_first and (found := attempts.begin(notes, excused=this_job.was_taken)).count > job.cluster.max_retries:
            _give_up(job, found)
            sys.exit(FAILED)
        outcome: list[Outcome] = []

        def work() -> None:
            try:
                outcome.append(_work(Path(self._path), job, stop))
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                outcome.append(_note_failure(job, str(error)))
            finally:
                ended.set()

        # In a thread, so that a signal is heard at once, whatever the work is in the middle of.
        threading.Thread(target=work, daemon=True).start()
        deadline = None
        while not ended.wait(0.2):
            if stop.is_set() and deadline is None:
                deadline = time.monotonic() + 0.7 * warning_seconds(job.cluster.time_minutes)
                if is_first:
                    attempts.end(notes)  # Slurm may not leave the time to do it afterwards.
            if deadline is not None and time.monotonic() > deadline:
                say("no step ended in time: going on from the checkpoint before")
                os._exit(STOPPED)
        if not outcome:
            os._exit(128)  # The thread's traceback is in the log: `perform` itself went wrong.
        if is_first:
            attempts.end(notes)
        if outcome[0].state != "done":
            say(f"{outcome[0].state}: {outcome[0].error} (log: {outcome[0].log})")
            sys.exit(STOPPED if outcome[0].state == "stopped" else FAILED)

    def checkpoint(self) -> Any:
        """For a signal that comes before `__call__`: nothing is done yet, so only be queued again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(ChainJob(self._path))


def _work(path: Path, job: Job, stop: threading.Event) -> Outcome:
    """Run the job, or as another rank than the first help it."""
    if job.cluster.ranks == 1:
        return _lead(path, job, stop, None)
    return together(job, stop.is_set, lambda ranks: _lead(path, job, stop, ranks))


def _lead(path: Path, job: Job, stop: threading.Event, ranks: Ranks | None) -> Outcome:
    """Run the job in one of the sweep's places."""
    store = Store(Path(job.store))
    notes = attempts.attempts_path(store, job.sweep, job.chain)
    stand = _stand(job, store)

    def report(event: dict[str, Any]) -> None:
        if event["event"] == "phase":
            attempts.work(notes, None if event["phase"].startswith("waiting") else stand)

    def run() -> Outcome:
        attempts.work(notes, stand)
        return perform(path, report, stop.is_set, ranks)

    if job.cluster.license:
        return run()
    slots = store.jobs(job.sweep) / "slots"
    count = job.cluster.max_parallel
    is_early = job.task == "early"  # It waits for no place: what it would do is done in the end anyway.
    try:
        with Slot(
            slots, count, lambda: say(f"waiting: {count} jobs of the sweep run"), lambda: is_early or stop.is_set()
        ):
            return run()
    except WaitAbandoned:
        return Outcome(state="done" if is_early else "stopped", log=str(log_path(store, job.sweep, job.chain)))


def _stand(job: Job, store: Store) -> attempts.Stand:
    return attempts.standing((node.id for node in job.nodes), store)


def after(jobs: Path, status: int) -> int:
    """Decide what becomes of this job, whose processes ended with `status`; returns the job's own exit status.

    A stop leads back into the queue; so does a death, `cluster.max_retries` times. A time limit that leaves no time for
    anything that lasts is a death: the next run would get no further.
    """
    job = _this_job(jobs)
    if job is None:
        say(f"{jobs}: no word of this job; launch the sweep again")
        return status
    store = Store(Path(job.store))
    is_noted = failure_path(store, job.sweep, job.chain).is_file()
    # Where Slurm itself notices that the kernel killed for want of memory, srun ends with 1 instead of the signal.
    is_short = status in (FAILED, 128 + signal.SIGKILL) and not is_noted and memory.ran_out_in_job()
    if status == FAILED and not is_short:
        if not is_noted:
            _note_failure(job, f"the job did not get as far as its work; see {jobs / 'slurm'}")
        return FAILED
    if not this_job.is_running():
        return status  # Cancelled, or being queued again by Slurm itself.
    notes = attempts.attempts_path(store, job.sweep, job.chain)
    if is_short:
        reason: str | None = f"out of memory; cluster.memory_gb={job.cluster.memory_gb} is too little"
    else:
        reason = _words(status) if status != STOPPED else _standstill(job, store, notes)
    if reason is not None:
        found = attempts.died(notes, reason)
        say(f"death {found.count} of {job.chain}: {found.reason}")
        if found.count > job.cluster.max_retries:
            _give_up(job, found)
            return FAILED
    _queue_again(job, store)
    return status


def _queue_again(job: Job, store: Store) -> None:
    """By scontrol; where that is not to be had, as a new job, with new jobs for the chains behind it."""
    if shutil.which("scontrol"):
        done = subprocess.run(["scontrol", "requeue", this_job.my_id()], check=False)
        if done.returncode == 0 or not this_job.is_running():
            return
    from davinci.launching.slurm import resubmit

    resubmit(job, store)


def _this_job(jobs: Path) -> Job | None:
    """The job that the launcher's book has under this Slurm job's id."""
    me = this_job.my_id()
    until = time.monotonic() + BOOK_SECONDS
    while True:
        book = jobs / "slurm.json"
        chains = [chain for chain, job in read_json(book).items() if job == me] if book.is_file() else []
        if chains:
            return read_job(job_path(Store(jobs.parent.parent), jobs.name, chains[0]))
        if time.monotonic() > until:
            return None
        time.sleep(0.5)


def say(text: str) -> None:
    """Print where Slurm keeps what the job says. A full disk must not end what comes after, nor change how it exits."""
    try:
        print(text, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def _standstill(job: Job, store: Store, notes: Path) -> str | None:
    """What is wrong with a job that its time limit stopped where it had begun; None where nothing is."""
    if attempts.read_attempts(notes).stand != _stand(job, store):
        return None
    left = this_job.seconds_left()
    if left is None or left > warning_seconds(job.cluster.time_minutes) + EARLY_SECONDS:
        return None  # It was preempted, or queued again by hand.
    limit = job.cluster.time_minutes
    return f"its time limit came before its next checkpoint or evaluation; cluster.time_minutes={limit} is too short"


def _words(status: int) -> str:
    return f"killed by signal {status - 128}" if status > 128 else f"exit status {status}"


def _give_up(job: Job, found: attempts.Attempts) -> None:
    _note_failure(job, f"the job died {found.count} times, at last: {found.reason}")


def _note_failure(job: Job, error: str) -> Outcome:
    store = Store(Path(job.store))
    outcome = Outcome(state="failed", error=error, log=str(log_path(store, job.sweep, job.chain)))
    with suppress(OSError):  # A full disk: the job fails all the same.
        write_json(failure_path(store, job.sweep, job.chain), outcome.model_dump())
    return outcome


if __name__ == "__main__":
    sys.exit(after(Path(sys.argv[1]), int(sys.argv[2])))
