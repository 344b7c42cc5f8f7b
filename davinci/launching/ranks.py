"""A job on several ranks (processes, perhaps on several nodes): the first runs it, the others train when it trains.

The first alone takes locks, evaluates, and writes records and marks; meanwhile the others wait. However the job ends,
it ends alike on all.

``torchrun --nproc-per-node N -m davinci.launching.ranks JOB`` runs the job file JOB; Slurm's jobs come here by
themselves (see `wrapper`).
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from davinci.errors import RankLost, UserError
from davinci.launching.job import Job, Outcome, log_path, perform, probes, read_job
from davinci.store import Store

if TYPE_CHECKING:
    from davinci.training.distributed import Ranks


def together(job: Job, should_stop: Callable[[], bool], lead: Callable[[Ranks], Outcome]) -> Outcome:
    """Join the ranks that were started beside this process; the first does `lead`, the others what it asks for.

    Raises:
        RankLost: another is gone, and this one was not asked to stop.
    """
    from davinci.training.distributed import join

    log = str(log_path(Store(Path(job.store)), job.sweep, job.chain))
    with join() as ranks:
        try:
            if not ranks.is_first:
                return _assist(job, ranks, should_stop, log)
            outcome = lead(ranks)
            if outcome.state == "failed":
                ranks.leave(outcome.error or outcome.state)
            else:
                with ranks.blamed():
                    ranks.share(outcome)
            return outcome
        except RankLost:
            if should_stop():  # So were they: one ran out of time.
                return Outcome(state="stopped", log=log)
            raise


def _assist(job: Job, ranks: Ranks, should_stop: Callable[[], bool], log: str) -> Outcome:
    """Train what the first rank trains, until it says how the job ended."""
    from davinci.training.accelerators import require_gpus
    from davinci.training.loop import Stopped, train
    from davinci.training.numerics import configure

    configure(job.cluster.threads)
    nodes = {node.id: node for node in job.nodes}
    try:
        while True:
            with ranks.blamed():
                asked = ranks.share(None)
            if isinstance(asked, Outcome):
                return asked
            node, checkpoints = asked
            require_gpus(job.cluster.gpus_per_node, ranks)
            with suppress(Stopped):  # The first rank knows too, and whether that is the end.
                train(
                    nodes[node],
                    Store(Path(job.store)),
                    checkpoints=checkpoints,
                    attempt=0,
                    progress=lambda tokens, speed, loss: None,
                    should_stop=should_stop,
                    heldout_sequences=job.heldout_sequences,
                    probes=probes(job, nodes[node], Store(Path(job.store))),
                    ranks=ranks,
                    execution=job.cluster,
                )
    except RankLost:
        raise
    except Exception as error:
        traceback.print_exc()
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        words = " ".join(f"{kind}{error}".split())
        ranks.leave(f"rank {ranks.rank}: {words}")
        return Outcome(state="failed", error=words, log=log)


def main() -> int:
    from davinci.launching.wrapper import DONE, FAILED, STOPPED

    path, stop = Path(sys.argv[1]), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: stop.set())
    job = read_job(path)
    outcome = together(job, stop.is_set, lambda ranks: perform(path, lambda event: None, stop.is_set, ranks))
    print(f"{outcome.state}: {outcome.error or job.chain} (log: {outcome.log})", flush=True)
    return {"done": DONE, "failed": FAILED, "cancelled": FAILED, "stopped": STOPPED}[outcome.state]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
