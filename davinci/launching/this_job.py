"""What Slurm says of the job that this process is part of."""

from __future__ import annotations

import os
import subprocess
import time

# Accounting learns of the end of a run some seconds late.
ACCOUNTING_SECONDS = 30.0


def my_id() -> str:
    """This job's id; never SLURM_JOB_ID of an array's task, which for one of them names the whole array."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def is_running() -> bool:
    """Whether Slurm still means this job to run; also where it cannot be asked."""
    command = ["squeue", "--noheader", f"--jobs={my_id()}", "--format=%T"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return bool(found.returncode) or found.stdout.strip() == "RUNNING"


def seconds_left() -> int | None:
    """Until this job's time limit; None where Slurm does not say."""
    command = ["squeue", "--noheader", f"--jobs={my_id()}", "--format=%L"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.strip()
        days, _, clock = told.rpartition("-")
        seconds = 0
        for part in clock.split(":"):
            seconds = 60 * seconds + int(part)
        return 86_400 * int(days or 0) + seconds
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def was_taken() -> bool:
    """Whether accounting says that Slurm itself ended this job's run before this one, for another job or by hand.

    It may have done so with SIGKILL alone, where GraceTime and KillWait are 0. False where there is no accounting, or
    where it does not have the end of that run in time.
    """
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if restarts == 0:
        return False
    command = ["sacct", "--duplicates", "-X", "-n", "-P", "-o", "Start,State,End", "-j", my_id()]
    until = time.monotonic() + ACCOUNTING_SECONDS
    while True:
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return False
        runs = sorted(line.split("|") for line in told.stdout.splitlines() if line.count("|") == 2)
        ended = [state for _, state, end in runs if end != "Unknown"]
        if len(ended) >= restarts:
            return ended[-1].split()[:1] in (["PREEMPTED"], ["REQUEUED"])
        if time.monotonic() > until:
            return False
        time.sleep(1)
