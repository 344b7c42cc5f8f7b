"""States of a chain that still trains, evaluated beside it on Slurm where evaluation is separate.

The job that trains has one submitted when a state that is asked for is on the disk, unless one of the chain is queued
or at work: that one finds it too. It takes no node's lock, so that training never waits for it, and keeps results
without recording them. What is kept when a node is trained is recorded then, and the job behind the chain does what is
left: all of it on a cluster whose nodes may not submit.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from davinci.config import Node
from davinci.errors import UserError
from davinci.launching.cancelling import clear_marks
from davinci.launching.evaluating import Halted, is_kept, results_of
from davinci.launching.job import Job, job_path, read_job
from davinci.launching.reconcile import Asked, looks_whole
from davinci.launching.tasks import EVALUATION
from davinci.store import Store, write_json

# What follows a chain's name in that of the job which evaluates its states early.
EARLY = ".early"


class Herald:
    """Has a chain's states evaluated while it trains; called with the tokens that a node has reached.

    Args:
        job: that trains; its sweep has one that evaluates the chain.
        node: that is trained.
        asked: what is asked of it.
        store: where its checkpoints are.
    """

    def __init__(self, job: Job, node: str, asked: Sequence[Asked], store: Store) -> None:
        self._path = job_path(store, job.sweep, job.chain + EVALUATION)
        self._due = sorted({one.demand.tokens for one in asked}) if self._path.is_file() else []
        self._checkpoint: Callable[[int], Path] = lambda tokens: store.checkpoint(node, tokens)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, tokens: int) -> None:
        if not self._due or self._due[0] >= tokens or not looks_whole(self._checkpoint(self._due[0])):
            return
        if self._process is not None and self._process.poll() is None:
            return  # It is still submitting for the state before.
        while self._due and self._due[0] < tokens:
            self._due.pop(0)
        # In a process of its own: Slurm may take long to answer, and must not think it submitted from within a job.
        own = {key: value for key, value in os.environ.items() if not re.match(r"(SLURM|SBATCH|SRUN)_(?!CONF$)", key)}
        command = [sys.executable, "-m", "davinci.launching.early", str(self._path)]
        self._process = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL)


def submit(path: Path) -> None:
    """Submit the job that evaluates early what the one at `path` evaluates in the end, unless one is there."""
    from davinci.launching.slurm import submit_beside

    behind = read_job(path)
    store = Store(Path(behind.store))
    chain = behind.chain.removesuffix(EVALUATION) + EARLY
    job = behind.model_copy(update={"chain": chain, "task": "early", "after": None})

    def write(jobs: Sequence[Job]) -> None:
        clear_marks(store, job.sweep, [one.chain for one in jobs])
        for one in jobs:
            write_json(job_path(store, job.sweep, one.chain), one.model_dump(mode="json"))

    submit_beside(job.sweep, store, lambda code: [job], write)


def evaluate(asked: Callable[[], Sequence[tuple[Node, Asked]]], store: Store, should_stop: Callable[[], bool]) -> None:
    """Keep the results of what is asked of states that are on the disk, until there are no more such.

    Raises:
        Halted: `should_stop` turned true.
    """
    done: set[tuple[str, int, str]] = set()
    while True:
        there = [
            (key, node, one)
            for node, one in asked()
            if (key := (node.id, one.demand.tokens, one.demand.suite)) not in done and _is_there(node, one, store)
        ]
        if not there:
            return
        for key, node, one in there:
            done.add(key)
            if should_stop():
                raise Halted("asked to stop")
            if not is_kept(one, node, store):
                with suppress(FileNotFoundError):  # It was pruned meanwhile, so it is evaluated.
                    results_of(one, node, store, should_stop)


def _is_there(node: Node, asked: Asked, store: Store) -> bool:
    states = [(state.node, state.tokens) for state in asked.demand.states] or [(node.id, asked.demand.tokens)]
    return all(looks_whole(store.checkpoint(*state)) for state in states)


if __name__ == "__main__":
    try:
        submit(Path(sys.argv[1]))
    except UserError as error:
        print(f"not evaluated early: {error}")
