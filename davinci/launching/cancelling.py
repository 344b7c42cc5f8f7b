"""Stopping what works on a sweep or a run: Slurm's jobs, a launcher on this machine, workers wherever they are."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable

from davinci.config import Frozen
from davinci.errors import UserError
from davinci.launching.cancelled import mark, mark_path, reason
from davinci.launching.glance import glance
from davinci.launching.job import failure_path
from davinci.launching.lock import Owner
from davinci.launching.presence import is_here, launchers
from davinci.launching.queued import read_book
from davinci.launching.slurm_queue import cancel_jobs, queue
from davinci.launching.tasks import tasks, tasks_left
from davinci.planning.plan import Plan
from davinci.planning.wording import some
from davinci.store import Store


class Stopped(Frozen):
    """What was done: `chains` marked as cancelled, `kept` since other runs need them, Slurm `jobs` cancelled, local
    launchers that were `told` to stop. `beside` are the chains of evaluations on demand, which no launch takes up."""

    chains: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def cancel_sweep(plan: Plan, store: Store) -> Stopped:
    """Stop everything that works on the sweep; what is on disk stays, and launching it again goes on from there.

    Every stretch that is left is marked, since a signal reaches neither a launcher on another machine nor a job that
    Slurm is just starting again.

    Raises:
        UserError: nothing is left of the sweep to cancel, or Slurm cannot be asked.
    """
    left = glance(plan, store)
    chains = tasks_left(plan, left)
    beside = _beside(plan, store)
    if not chains and not beside:
        raise UserError(f"sweep {plan.sweep!r}: all {len(plan.runs)} runs are done; nothing to cancel")
    names = tuple(chain.name for chain in chains)
    for name in (*names, *beside):
        mark(store, plan.sweep, name)
    told = _interrupt(launchers(store, plan.sweep))
    jobs = cancel_jobs(plan.sweep, (*names, *beside), store)
    return Stopped(chains=names, jobs=jobs, told=tuple(map(str, told)), beside=beside)


def _beside(plan: Plan, store: Store) -> tuple[str, ...]:
    """The live chains in the sweep's book that are no part of its plan: evaluations on demand."""
    planned = {task.name for task in tasks(plan)}
    jobs = {name: job for name, job in read_book(store, plan.sweep).items() if name not in planned}
    live = queue(jobs.values())
    return tuple(sorted(name for name, job in jobs.items() if job in live))


def cancel_run(plan: Plan, run: str, store: Store) -> Stopped:
    """Stop what only this run needs of what is left.

    Raises:
        UserError: the run is done, or cancelled, or other runs need all that it lacks.
    """
    left = glance(plan, store)
    chains_of: dict[str, list[str]] = {}
    for task in tasks_left(plan, left):
        for node in task.nodes:
            if not left[node].finished:
                chains_of.setdefault(node, []).append(task.name)
    mine: dict[str, str] = {}  # Chains with a run that needs them.
    others: dict[str, str] = {}
    for one in plan.runs:
        lacking = [task for node in one.nodes for task in chains_of.get(node, ())]
        if one.id == run:
            mine = dict.fromkeys(lacking, one.name)
        elif lacking and reason(store, plan.sweep, lacking[-1]) is None:
            others.update(dict.fromkeys(lacking, one.name))
    if not mine:
        raise UserError(f"run {run} is done; nothing to cancel")
    if reason(store, plan.sweep, list(mine)[-1]) is not None:
        raise UserError(f"run {run} is cancelled already; to go on: python -m davinci retry {plan.sweep}/{run}")
    chains = [name for name in mine if name not in others]
    if not chains:
        needing = some(sorted({others[name] for name in mine}))
        raise UserError(f"run {run}: all that it lacks is needed by {needing}; cancel {plan.sweep} to stop them all")
    for name in chains:
        mark(store, plan.sweep, name)
    jobs = cancel_jobs(plan.sweep, chains, store)
    return Stopped(chains=tuple(chains), kept=tuple(name for name in mine if name in others), jobs=jobs)


def clear_marks(store: Store, sweep: str, chains: Iterable[str]) -> list[str]:
    """Forget that chains failed or were cancelled; returns those that had."""
    cleared = []
    for name in chains:
        for path in (mark_path(store, sweep, name), failure_path(store, sweep, name)):
            if path.is_file():
                path.unlink(missing_ok=True)
                cleared.append(name)
    return list(dict.fromkeys(cleared))


def _interrupt(owners: Collection[Owner]) -> list[Owner]:
    """Send the launchers on this machine what Ctrl-C does; returns those that were there."""
    told = []
    for owner in owners:
        if is_here(owner):
            try:
                os.kill(owner.pid, signal.SIGINT)
            except ProcessLookupError:
                continue
            except PermissionError:
                raise UserError(f"{owner} belongs to another user, who alone can stop it") from None
            told.append(owner)
    return told
