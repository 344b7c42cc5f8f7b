"""The one call that turns a plan into trained and evaluated runs."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from davinci.config import Cluster, Node, Tracking
from davinci.launching.board import Board, duration
from davinci.launching.job import Job, Outcome
from davinci.launching.local import Pool, cores
from davinci.launching.mirror import Mirror
from davinci.launching.progress import Display, PatientConsole
from davinci.launching.reconcile import Remaining, plan_remaining, shared_evaluation
from davinci.launching.schedule import Schedule
from davinci.planning.plan import Plan
from davinci.store import Store, write_json


def launch(plan: Plan, store: Store, cluster: Cluster, tracking: Tracking) -> int:
    """Do what of the plan the store does not hold yet.

    The plan and its run manifests must be in the store already. On this machine it returns when all is done; on Slurm
    once the jobs are submitted.

    Returns:
        Exit status: 0 for success, 1 if runs failed, 128 + n if stopped by signal n.

    Raises:
        UserError: runs with different suites, or a cluster that cannot be reached.
    """
    started = time.monotonic()
    store = Store(store.root.absolute())  # Jobs may start in another folder.
    left = plan_remaining(plan, store)
    chains = plan.chains()
    work = {chain.name: sum(_work(plan.nodes[node], left[node]) for node in chain.nodes) for chain in chains}
    schedule = Schedule(chains, work)
    size = min(cluster.workers or max(1, cores() // cluster.threads), max(1, len(schedule.waiting)))
    board = Board(plan, left, size)
    display = Display(board, PatientConsole())
    jobs = write_jobs(plan, store, cluster.threads, schedule.waiting)
    if cluster.kind == "slurm" and jobs:
        from davinci.launching.slurm import submit

        submit(plan, store, cluster, tracking, schedule.waiting, jobs, display)
        return 0
    with Mirror(plan.sweep, store, tracking, display) as mirror:
        for run in board.finished_runs():
            mirror.add(run)
        if not jobs:
            display.say(f"all {len(plan.runs)} runs are done; nothing to train or evaluate")
            return 0
        pool = Pool(store, plan.sweep, schedule, jobs, board, display, size, cluster.threads, on_run=mirror.add)
        with display:
            status = pool.run()
        counts = ", ".join(f"{count} {name}" for name, count in board.runs().items() if count)
        display.say(f"runs: {counts} · {duration(time.monotonic() - started)}")
        _report_failures(plan, schedule, pool.errors, display)
    if status > 128:
        command = shlex.join([Path(sys.executable).name, *sys.argv])
        display.say(f"stopped; the same command goes on: {command}")
    return status


def _work(node: Node, left: Remaining) -> int:
    """Remaining work in tokens; what needs no training still counts as something."""
    return 0 if left.finished else 1 + len(left.evaluations) + node.end - left.start


def write_jobs(plan: Plan, store: Store, threads: int, names: Collection[str]) -> dict[str, Path]:
    """Freeze the named chains of the plan as job files; returns their paths."""
    evaluation = shared_evaluation(plan)
    paths = {}
    for chain in plan.chains():
        if chain.name not in names:
            continue
        job = Job(
            sweep=plan.sweep,
            chain=chain.name,
            store=str(store.root),
            threads=threads,
            nodes=tuple(plan.nodes[node] for node in chain.nodes),
            demands={node: tuple(plan.demands(node)) for node in chain.nodes},
            evaluation=evaluation,
        )
        paths[chain.name] = store.jobs(plan.sweep) / f"{chain.name}.json"
        write_json(paths[chain.name], job.model_dump(mode="json"))
    return paths


def _report_failures(plan: Plan, schedule: Schedule, errors: Mapping[str, Outcome], display: Display) -> None:
    """Name every failed run with its log, and every run that waited for it."""
    for chain in plan.chains():
        who = ", ".join(run.config.name for run in plan.runs if chain.name in run.nodes)
        if chain.name in errors:
            outcome = errors[chain.name]
            display.say(f"failed: {who}: {outcome.error}; log: {outcome.log}", "red")
        elif chain.name in schedule.blocked:
            display.say(f"blocked: {who}: waits for {chain.after}", "yellow")
