"""Evaluations that no plan asks for, as Slurm jobs: one a node, in the book of the sweep that it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from davinci.config import Cluster, Evaluation, Node
from davinci.launching.cancelling import clear_marks
from davinci.launching.demands import Demand
from davinci.launching.job import Job, job_path
from davinci.store import Store, write_json


def submit(
    sweep: str,
    wanted: Sequence[tuple[Node, Demand]],
    suites: Mapping[str, Evaluation],
    store: Store,
    cluster: Cluster,
) -> tuple[dict[str, str], int]:
    """Submit what is wanted, but for what is queued already.

    Returns:
        Slurm's ids of the jobs by their names, and how many of them are new.

    Raises:
        UserError: there is no Slurm here, or it refused a job.
    """
    from davinci.launching.slurm import submit_beside

    demands: dict[str, list[Demand]] = {}
    nodes = {node.id: node for node, _ in wanted}
    for node, demand in wanted:
        demands.setdefault(node.id, []).append(demand)
    place = cluster.model_copy(update={"kind": "slurm"}).for_evaluation

    def make(code: str) -> list[Job]:
        jobs = []
        for name, asked in demands.items():
            job = Job(
                sweep=sweep,
                chain=f"{name}.{_digest(asked)}",
                task="evaluate",
                after=None,
                store=str(store.root),
                cluster=place,
                code=code,
                nodes=(nodes[name],),
                demands={name: tuple(asked)},
                suites={demand.suite: suites[demand.suite] for demand in asked},
                heldout_sequences=1,
                donors={},
            )
            jobs.append(job)
        return jobs

    def write(jobs: Sequence[Job]) -> None:
        clear_marks(store, sweep, [job.chain for job in jobs])
        for job in jobs:
            write_json(job_path(store, sweep, job.chain), job.model_dump(mode="json"))

    return submit_beside(sweep, store, make, write)


def _digest(demands: Sequence[Demand]) -> str:
    return hashlib.sha256("".join(demand.model_dump_json() for demand in demands).encode()).hexdigest()[:8]
