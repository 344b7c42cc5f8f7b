"""The one call that turns a plan into trained and evaluated runs."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from davinci.accounting.machine import gpus, workers
from davinci.config import Cluster, Tracking
from davinci.errors import UserError
from davinci.launching.board import Board, duration
from davinci.launching.cancelling import clear_marks
from davinci.launching.demands import demanded, heldout_sequences, probed, suites
from davinci.launching.donors import donors
from davinci.launching.job import Job, Outcome, job_path
from davinci.launching.local import Pool
from davinci.launching.manifests import record
from davinci.launching.mirror import Mirror
from davinci.launching.parents import remove_damaged
from davinci.launching.presence import present
from davinci.launching.progress import Display, PatientConsole
from davinci.launching.reconcile import Remaining, plan_remaining
from davinci.launching.schedule import Schedule
from davinci.launching.tasks import kind, node_clusters, node_of, open_nodes, tasks
from davinci.planning.plan import Chain, Plan
from davinci.store import Store, write_json


def launch(plan: Plan, store: Store, cluster: Cluster, tracking: Tracking, only: Collection[str] | None = None) -> int:
    """Do what of the plan the store does not hold yet.

    The plan is recorded as launched first, and what failed or was cancelled before is forgotten. On this machine it
    returns when all is done; on Slurm once the jobs are submitted.

    Args:
        plan: what to do.
        store: where.
        cluster: how.
        tracking: whether finished runs are mirrored to W&B.
        only: the chains to launch, each with those it comes after; None for all.

    Returns:
        Exit status: 0 for success, 1 if runs failed, 128 + n if stopped by signal n.

    Raises:
        UserError: a cluster that cannot be reached, or arms on clusters of different kinds.
    """
    started = time.monotonic()
    store = Store(store.root.absolute())  # Jobs may start in another folder.
    _prepare_probes(plan, store)
    record(plan, store)
    left = plan_remaining(plan, store)
    damaged = remove_damaged(plan, left, store)
    if damaged:
        left = plan_remaining(plan, store)
    chains = [task for task in tasks(plan) if only is None or task.name in only]
    work = _work(plan, chains, left)
    schedule = Schedule(chains, work)
    waiting = schedule.waiting
    places = clusters(plan, waiting)
    if cluster.kind == "local":
        _require_gpus(places)
    clear_marks(store, plan.sweep, waiting)
    threads = max((place.threads for place in places.values()), default=cluster.threads)
    shared = min((place.runs_per_gpu for place in places.values()), default=cluster.runs_per_gpu)
    size = min(workers(cluster.model_copy(update={"threads": threads, "runs_per_gpu": shared})), max(1, len(waiting)))
    board = Board(plan, left, size)
    display = Display(board, PatientConsole())
    for folder in damaged:
        display.say(f"{folder}: cut short, so it is trained again before what starts from it", "yellow")
    if cluster.kind == "slurm" and waiting:
        from davinci.launching.slurm import submit

        submit(plan, store, tracking, waiting, display, lambda names, code: freeze(plan, store, names, code))
        return 0
    jobs = write_jobs(plan, store, waiting)
    with Mirror(plan.sweep, store, tracking, display) as mirror:
        for run in board.finished_runs():
            mirror.add(run)
        if not jobs:
            done = len(board.finished_runs())
            display.say(
                f"all {done} runs are done; nothing to train or evaluate"
                if done == len(plan.runs)
                else f"nothing of it is left to train or evaluate ({done} of {len(plan.runs)} runs are done)"
            )
            return 0
        mirror.start()
        retries = max(place.max_retries for place in places.values())
        pool = Pool(store, plan.sweep, schedule, jobs, board, display, size, threads, retries, on_run=mirror.add)
        with present(store, plan.sweep), display:
            status = pool.run()
        counts = ", ".join(f"{count} {name}" for name, count in board.runs().items() if count)
        display.say(f"runs: {counts} · {duration(time.monotonic() - started)}")
        _report_failures(chains, schedule, pool.errors, board, display)
    if status > 128:
        command = shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]])
        display.say(f"stopped; the same command goes on: {command}")
    return status


def _require_gpus(places: Mapping[str, Cluster]) -> None:
    """Have an accelerator on this machine where a chain asks for one."""
    if any(place.gpus_per_node for place in places.values()) and not gpus():
        raise UserError(
            f"cluster.gpus_per_node: runs ask for an accelerator, but {platform.node()} shows none (nvidia-smi, "
            "CUDA_VISIBLE_DEVICES); cluster.gpus_per_node=0 trains on processors"
        )


def _prepare_probes(plan: Plan, store: Store) -> None:
    """Put the items that the plan's probes ask for into the store."""
    asked = {(arm.config.pool.name, arm.config.evaluation.probes) for arm in plan.arms if arm.config.evaluation.probes}
    if asked:
        from davinci.evaluation.probe_set import prepare  # imports numpy, which a command may not need

        for pool, wanted in asked:
            prepare(store, pool, wanted)


def _work(plan: Plan, chains: Sequence[Chain], left: Mapping[str, Remaining]) -> dict[str, int]:
    """Remaining work of each task in tokens; what needs no training still counts as something."""
    places = node_clusters(plan)
    work = {}
    for task in chains:
        place = places[node_of(task.name)]
        what = kind(task.name, place)
        work[task.name] = sum(
            1
            + (len(left[node].evaluations) if what != "train" else 0)
            + (plan.nodes[node].end - left[node].start if what != "evaluate" else 0)
            for node in open_nodes(task, left, place)
        )
    return work


def clusters(plan: Plan, names: Collection[str]) -> dict[str, Cluster]:
    """What each named chain is run with: what the first run through it says.

    Raises:
        UserError: arms on clusters of different kinds.
    """
    of_arm = {arm.label: arm.config.cluster for arm in plan.arms}
    kinds = {one.kind: label for label, one in of_arm.items()}
    if len(kinds) > 1:
        where = ", ".join(f"{kind} (arm {label})" for kind, label in kinds.items())
        raise UserError(f"cluster.kind: a sweep is launched on one cluster, but its arms name {where}")
    first = node_clusters(plan)
    return {name: _place(name, first[node_of(name)]) for name in names}


def _place(task: str, cluster: Cluster) -> Cluster:
    return cluster.for_evaluation if kind(task, cluster) == "evaluate" else cluster


def write_jobs(plan: Plan, store: Store, names: Collection[str]) -> dict[str, Path]:
    """Freeze the named chains of the plan as job files; returns their paths."""
    return {name: job_path(store, plan.sweep, name) for name in freeze(plan, store, names)}


def freeze(plan: Plan, store: Store, names: Collection[str], code: str | None = None) -> dict[str, Job]:
    """Write the job files of the named chains, to be run by the snapshot `code`; returns the jobs."""
    if not names:
        return {}
    wanted = set(names)
    asked, known, probing = demanded(plan), suites(plan), probed(plan)
    places, sequences = clusters(plan, names), heldout_sequences(plan)
    chains = [task for task in tasks(plan) if task.name in wanted]
    given = donors(plan, (node for chain in chains for node in chain.nodes), store)
    jobs = {}
    for chain in chains:
        demands = {node: asked[node] for node in chain.nodes if node in asked}
        used = {demand.suite for found in demands.values() for demand in found}
        jobs[chain.name] = Job(
            sweep=plan.sweep,
            chain=chain.name,
            task=kind(chain.name, places[chain.name]),
            after=chain.after,
            store=str(store.root),
            cluster=places[chain.name],
            code=code,
            nodes=tuple(plan.nodes[node] for node in chain.nodes),
            demands=demands,
            suites={key: suite for key, suite in known.items() if key in used},
            heldout_sequences=sequences,
            donors={node: given[node] for node in chain.nodes if node in given},
            probes={node: probing[node] for node in chain.nodes if node in probing},
        )
        write_json(job_path(store, plan.sweep, chain.name), jobs[chain.name].model_dump(mode="json"))
    return jobs


def _report_failures(
    chains: Sequence[Chain], schedule: Schedule, errors: Mapping[str, Outcome], board: Board, display: Display
) -> None:
    """Name every failed run with its log, and every run that waited for it."""
    for chain in chains:
        if chain.name in errors:
            outcome = errors[chain.name]
            words = f"{outcome.state}: {board.unfinished(chain.name)}: {outcome.error}; log: {outcome.log}"
            display.say(words, "yellow" if outcome.state == "cancelled" else "red")
        elif chain.name in schedule.blocked:
            display.say(f"blocked: {board.unfinished(chain.name)}: waits for {chain.after}", "yellow")
