"""What becomes of the Slurm job that mirrors a sweep to W&B when it ends: ``python -m davinci.launching.mirror_job``.

It is queued again where it was told to stop (its time limit, another job) or killed: it goes on from its notes in the
store and from what W&B has. It stays ended where the sweep is over, and where W&B takes nothing: it has said why then.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from davinci.launching import attempts, this_job
from davinci.launching.wrapper import STOPPED

# Times that it may be killed.
DEATHS = 10
# Exit statuses of `sync`: done, some refused, a mistake or W&B not to be had.
_ENDED = (0, 1, 2)


def after(notes: Path, status: int) -> int:
    """Queue this job again, whose process ended with `status`, if that may help; returns the job's own exit status.

    `notes` count how often it was killed.
    """
    if status in _ENDED or not this_job.is_running():
        return status
    if status != STOPPED and (found := attempts.died(notes, f"exit status {status}")).count > DEATHS:
        print(f"the mirror died {found.count} times, at last: {found.reason}", flush=True)
        return status
    subprocess.run(["scontrol", "requeue", this_job.my_id()], check=False)
    return status


if __name__ == "__main__":
    sys.exit(after(Path(sys.argv[1]), int(sys.argv[2])))
