"""Runs over several ranks and nodes on Slurm, the real loop and all, warned and killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gang import Gang
from pools import tiny_pool
from real_plans import UNIT, arm, planned, stage
from slurm_jobs import SLURM, digests, field, wait_for

from davinci.launching.attempts import attempts_path, read_attempts
from davinci.launching.job import Outcome, perform, read_job
from davinci.launching.launch import launch, write_jobs
from davinci.launching.queued import read_book
from davinci.launching.ranks import together
from davinci.launching.reconcile import plan_remaining
from davinci.planning.plan import Plan
from davinci.store import Store, read_json
from davinci.tracking.records import read

# Long enough that a job is still at work when a test has seen its first rows: two hundred steps.
UNITS = 80

Until = Callable[[Callable[[], bool]], None]


def prepared(folder: Path, tasks: int, parallel: str = "ddp") -> tuple[Store, Plan]:
    """A store, and a plan of one chain for `tasks` ranks on each of two nodes."""
    store = Store(folder)
    tiny_pool(store, tokens=40_000)
    long = stage(UNITS) | {"batch_size": [{"from_tokens": 0, "sequences": 4}]}
    run = arm("ranks", {"s": long}, {})
    cluster = run.cluster.model_copy(
        update=SLURM | {"nodes": 2, "tasks_per_node": tasks, "memory_gb": 2, "parallel": parallel}
    )
    run = run.model_copy(update={"cluster": cluster, "checkpoint_every_tokens": 10 * UNIT})
    return store, planned(store, run)


def here(path: Path) -> Outcome:
    """A rank of the job, undisturbed, on this machine."""
    return together(
        read_job(path), lambda: False, lambda ranks: perform(path, lambda event: None, lambda: False, ranks)
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, str]]]:
    """Digests of the weights that `tasks` ranks on each of two nodes arrive at."""
    ranks = Gang(4)

    def weights(tasks: int, parallel: str = "ddp") -> dict[str, str]:
        store, plan = prepared(tmp_path_factory.mktemp("quiet"), tasks, parallel)
        (path,) = write_jobs(plan, store, [chain.name for chain in plan.chains()]).values()
        assert {outcome.state for outcome in ranks.run(2 * tasks, here, path)} == {"done"}
        return digests(store)

    yield weights
    ranks.close()


def start(plan: Plan, store: Store, until: Until) -> str:
    """Launch, wait until it trains; the job's id."""
    config = plan.arms[0].config
    assert launch(plan, store, config.cluster, config.tracking) == 0
    (chain,) = plan.chains()
    until(lambda: len(read(store.records(chain.nodes[0]), "train")) > 2)
    return read_book(store, plan.sweep)[chain.name]


def process(job: str, rank: int) -> int:
    """Process id of a rank: the innermost Python that has the variables of the task."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes().split(b"\0")
        except OSError:
            continue
        here = f"SLURM_CONF={os.environ['SLURM_CONF']}"  # Another cluster may have a job of this id.
        wanted = {here.encode(), f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode(), b"SLURM_STEP_ID=0"}
        if wanted <= set(environment) and b"submitit" in (path.parent / "cmdline").read_bytes():
            found.append(int(path.parent.name))
    return max(found)


def mark(plan: Plan, store: Store) -> dict[str, Any]:
    (node,) = plan.nodes
    found: dict[str, Any] = read_json(store.node(node) / "done.json")
    return found


@pytest.mark.parametrize(
    ("tasks", "parallel"),
    [(1, "ddp"), pytest.param(2, "ddp", marks=pytest.mark.slow), pytest.param(1, "fsdp", marks=pytest.mark.slow)],
)
def test_a_job_that_is_warned_and_then_loses_a_rank_goes_on_to_the_same_weights(
    cluster: Path, tmp_path: Path, until: Until, undisturbed: Callable[..., dict[str, str]], tasks: int, parallel: str
) -> None:
    store, plan = prepared(tmp_path, tasks, parallel)
    job = start(plan, store, until)
    assert (field(job, "NumNodes"), field(job, "NumTasks")) == ("2", str(2 * tasks))
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    (chain,) = plan.chains()
    until(lambda: any(row["attempt"] == 2 for row in read(store.records(chain.nodes[0]), "train")))
    assert read_attempts(attempts_path(store, plan.sweep, chain.name)).count == 0, "to be warned is not to die"
    os.kill(process(job, 1), signal.SIGKILL)
    wait_for(store, plan.sweep)
    found = read_attempts(attempts_path(store, plan.sweep, chain.name))
    assert (found.count, found.reason) == (1, "killed by signal 9"), "the other rank ended with it"
    assert all(left.finished for left in plan_remaining(plan, store).values())
    assert (field(job, "JobState"), field(job, "Restarts")) == ("COMPLETED", "2")
    assert mark(plan, store)["worlds"] == [2 * tasks]
    assert mark(plan, store)["attempt"] == 3
    assert digests(store) == undisturbed(tasks, parallel)
