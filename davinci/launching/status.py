"""The state of a sweep's runs, read from the store alone: any host, any time, whoever runs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Literal

from davinci.accounting.machine import workers
from davinci.config import Frozen
from davinci.errors import UserError
from davinci.launching.board import stretch_name
from davinci.launching.cancelled import reason
from davinci.launching.forecast import finish_times, pace, seconds_left, tail
from davinci.launching.glance import glance
from davinci.launching.job import failure_path, log_path
from davinci.launching.lock import holder, is_silent
from davinci.launching.mirror_log import last_error
from davinci.launching.presence import launchers
from davinci.launching.queued import read_book
from davinci.launching.slurm_queue import queue
from davinci.launching.tasks import EVALUATION, is_trained, tasks
from davinci.planning.plan import Chain, Plan, PlannedRun
from davinci.store import Store, read_json

Standing = Literal["done", "running", "waiting", "failed", "blocked", "cancelled"]


class RunState(Frozen):
    """One run as the store shows it.

    `tokens` counts those trained. `at` is the stage being worked on, that failed, or that comes next; `chain` the job
    it is in. `error` is why it failed or who cancelled it; `blocked_by` the stretch that failed before the run's own,
    in words. `queued` is what Slurm says of the job it waits for. `eta_seconds` is null where nothing is known or
    nobody works on the sweep. `spikes` counts steps whose loss or gradient norm stood far above those before, in the
    finished stretches and the newest rows of those at work.
    """

    id: str
    arm: str
    seed: int
    state: Standing
    tokens: int
    total_tokens: int
    spikes: int = 0
    at: str | None = None
    chain: str | None = None
    phase: Literal["training", "evaluating"] | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    error: str | None = None
    blocked_by: str | None = None
    queued: str | None = None
    log: str | None = None


class Failure(Frozen):
    """A chain that failed or was cancelled, in words too. `runs` are the ids of all runs that pass through it."""

    chain: str
    name: str
    error: str
    cancelled: bool
    log: str
    runs: tuple[str, ...]


class Work(Frozen):
    """A node that someone works on: what it is in words, who does, how much of it is trained (0 to 1)."""

    node: str
    name: str
    by: str
    phase: Literal["training", "evaluating"]
    trained: float
    tokens_per_second: float | None


class SweepState(Frozen):
    """A sweep as the store shows it; tokens count shared stretches once.

    `launchers` are the local ones at work; `queued` counts Slurm's live jobs by what it says of them, and is null where
    Slurm does not answer. `mirror_error` is what keeps W&B from having all, if that is the last that its mirror said.
    """

    sweep: str
    counts: dict[str, int]
    tokens: int
    total_tokens: int
    tokens_per_second: float | None
    eta_seconds: float | None
    launchers: tuple[str, ...]
    queued: dict[str, int] | None
    mirror_error: str | None
    working: tuple[Work, ...]
    failures: tuple[Failure, ...]
    runs: tuple[RunState, ...]

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left that could run as things are."""
        return not self.counts.get("running") and not self.counts.get("waiting")

    @property
    def is_worked_on(self) -> bool:
        """Whether someone is seen to work on it."""
        return bool(self.launchers or self.queued or self.counts.get("running"))


def run_states(plan: Plan, store: Store) -> list[RunState]:
    """The state of every run of the plan, in its order."""
    return list(sweep_state(plan, store).runs)


def sweep_state(plan: Plan, store: Store) -> SweepState:
    """The state of every run of the plan and of the whole."""
    return _Reader(plan, store).state()


class _Reader:
    """What one look at the store says about a plan."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan = plan
        self._store = store
        self._left = glance(plan, store)
        self._chains = plan.chains()
        tasks_of = {task.name: task for task in tasks(plan)}
        self._owners: dict[str, list[PlannedRun]] = {}
        for run in plan.runs:
            for node in run.nodes:
                self._owners.setdefault(node, []).append(run)
        self._trained_by = {node: chain.name for chain in self._chains for node in chain.nodes}
        # A node's job: what evaluates it, once it is trained and where that is a job of its own.
        self._chain_of = {
            node: own if (own := chain + EVALUATION) in tasks_of and is_trained(self._left[node]) else chain
            for node, chain in self._trained_by.items()
        }
        open_nodes = [node for chain in self._chains for node in chain.nodes if not self._left[node].finished]
        self._first_open: dict[str, str] = {}
        for node in open_nodes:
            self._first_open.setdefault(self._chain_of[node], node)
        self._holders = {
            name: who
            for name in open_nodes
            if (who := holder(folder := store.node(name))) is not None and not is_silent(folder, store.root)
        }
        self._running = {name: tail(store.records(name)) for name in self._holders}
        active = {self._chain_of[name] for name in self._running}
        idle = [name for name in self._first_open if name not in active]
        self._cancelled = {name: by for name in idle if (by := reason(store, plan.sweep, name)) is not None}
        self._errors = {name: why for name in idle if (why := _error(plan.sweep, name, store)) is not None}
        self._errors |= self._cancelled
        self._queue = self._ask_slurm()
        self._launchers = tuple(str(owner) for owner in launchers(store, plan.sweep))
        self._finish = self._finish_times(active)

    def state(self) -> SweepState:
        runs = tuple(self._run(run) for run in self._plan.runs)
        counts: dict[str, int] = {}
        for run in runs:
            counts[run.state] = counts.get(run.state, 0) + 1
        nodes = self._plan.nodes.values()
        speeds = [one.speed for name, one in self._running.items() if one.speed and self._is_training(name)]
        return SweepState(
            sweep=self._plan.sweep,
            counts=counts,
            tokens=sum(self._trained(node.id) for node in nodes),
            total_tokens=sum(node.end - node.begin for node in nodes),
            tokens_per_second=sum(speeds) if speeds else None,
            eta_seconds=max(self._finish.values(), default=None) if self._finish else None,
            launchers=self._launchers,
            queued=None if self._queue is None else dict(Counter(self._queue.values())),
            mirror_error=last_error(self._store, self._plan.sweep),
            working=tuple(map(self._work, self._running)),
            failures=self._failures(),
            runs=runs,
        )

    def _run(self, run: PlannedRun) -> RunState:
        open_nodes = [node for node in run.nodes if not self._left[node].finished]
        held = [node for node in open_nodes if node in self._running]
        failed = [node for node in open_nodes if self._chain_of[node] in self._errors]
        state: Standing = "waiting"
        at = open_nodes[0] if open_nodes else None
        last = self._chain_of[run.nodes[-1]]
        if not open_nodes:
            state = "done"
        elif last in self._cancelled:
            state, at = "cancelled", self._first_open[last]
        elif held:
            state, at = "running", held[0]
        elif failed:  # Its own last stretch, or one before it.
            at = failed[0]
            state = "failed" if self._chain_of[at] == last else "blocked"
        chain = self._chain_of[at] if at else None
        measured = self._running.get(at) if at else None
        is_training = at is not None and self._is_training(at)
        return RunState(
            id=run.id,
            arm=run.arm,
            seed=run.seed,
            state=state,
            tokens=sum(map(self._trained, run.nodes)),
            total_tokens=self._plan.nodes[run.nodes[-1]].end,
            spikes=sum(map(self._spikes, run.nodes)),
            at=self._plan.nodes[at].stage_name if at else None,
            chain=chain,
            phase=self._phase(at) if at and state == "running" else None,
            tokens_per_second=measured.speed if measured and is_training else None,
            eta_seconds=self._finish.get(self._trained_by[run.nodes[-1]]) if open_nodes else None,
            error=self._errors[chain] if chain and state in ("failed", "cancelled") else None,
            blocked_by=self._words(chain) if chain and state == "blocked" else None,
            queued=(self._queue or {}).get(chain) if chain and state == "waiting" else None,
            log=str(log_path(self._store, self._plan.sweep, chain)) if chain and state != "waiting" else None,
        )

    def _trained(self, name: str) -> int:
        """Tokens trained of a node."""
        node, reached = self._plan.nodes[name], self._left[name].start
        measured = self._running.get(name)
        if measured is not None and measured.tokens is not None and self._left[name].train:
            reached = max(reached, measured.tokens)
        return min(max(reached - node.begin, 0), node.end - node.begin)

    def _spikes(self, name: str) -> int:
        """Spikes of a node, as far as they are known without reading all its records."""
        return self._running[name].spikes if name in self._running else self._left[name].spikes

    def _work(self, name: str) -> Work:
        node, phase = self._plan.nodes[name], self._phase(name)
        return Work(
            node=name,
            name=stretch_name(node, self._owners[name]),
            by=str(self._holders[name]),
            phase=phase,
            trained=self._trained(name) / (node.end - node.begin),
            tokens_per_second=self._running[name].speed if phase == "training" else None,
        )

    def _phase(self, name: str) -> Literal["training", "evaluating"]:
        return "evaluating" if self._left[name].evaluations and not self._is_training(name) else "training"

    def _is_training(self, name: str) -> bool:
        """Whether a node that is worked on is not trained to its end."""
        node = self._plan.nodes[name]
        return self._trained(name) < node.end - node.begin

    def _ask_slurm(self) -> dict[str, str] | None:
        """What Slurm says of each chain that is queued or running; None where it does not answer."""
        jobs = read_book(self._store, self._plan.sweep)
        jobs = {name: jobs[name] for name in self._first_open if name in jobs}
        try:
            states = queue(jobs.values())
        except UserError:
            return None
        return {name: states[job] for name, job in jobs.items() if job in states}

    def _finish_times(self, active: Collection[str]) -> Mapping[str, float]:
        """Seconds until each chain that can run is done; nothing where nobody works or no speed was recorded."""
        if not active and not self._launchers and not self._queue:
            return {}
        speeds = pace(self._plan, self._left, self._running, self._store)
        if not speeds.known:
            return {}
        out: set[str] = set()
        able: list[Chain] = []
        for chain in self._chains:
            if chain.name in self._errors or chain.after in out:
                out.add(chain.name)
            else:
                able.append(chain)
        seconds = {
            chain.name: sum(
                seconds_left(self._plan.nodes[node], self._left[node], self._running.get(node), speeds)
                for node in chain.nodes
                if not self._left[node].finished
            )
            for chain in able
        }
        cluster = self._plan.arms[0].config.cluster
        size = workers(cluster) if cluster.kind == "local" else cluster.max_parallel
        return finish_times(
            able, seconds, [name for name in seconds if name in active or name + EVALUATION in active], size
        )

    def _failures(self) -> tuple[Failure, ...]:
        return tuple(
            Failure(
                chain=name,
                name=self._words(name),
                error=error,
                cancelled=name in self._cancelled,
                log=str(log_path(self._store, self._plan.sweep, name)),
                runs=tuple(run.id for run in self._owners[self._first_open[name]]),
            )
            for name, error in self._errors.items()
        )

    def _words(self, chain: str) -> str:
        """A chain in words: what of it comes next."""
        node = self._first_open[chain]
        return stretch_name(self._plan.nodes[node], self._owners[node])


def _error(sweep: str, chain: str, store: Store) -> str | None:
    """Why the chain failed, in one line; None where it did not."""
    try:
        return str(read_json(failure_path(store, sweep, chain))["error"])
    except FileNotFoundError:
        return None
    except (UserError, KeyError, TypeError):
        return "failed; see its log"
