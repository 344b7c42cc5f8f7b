"""Chains on this machine: a bounded pool of persistent worker processes and the loop that keeps them busy."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from davinci.accounting.machine import core_sets, gpus
from davinci.launching import memory
from davinci.launching.board import Board
from davinci.launching.job import Outcome, failure_path, log_path
from davinci.launching.progress import Display
from davinci.launching.schedule import Schedule
from davinci.store import Store, write_json

WORKER = [sys.executable, "-m", "davinci.launching.worker"]

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that hold numeric libraries to `threads` threads, if set before they are imported."""
    return {**dict.fromkeys(_THREAD_VARIABLES, str(threads)), "TOKENIZERS_PARALLELISM": "false"}


class Worker:
    """One worker process and the socket to it.

    Args:
        number: among the workers of its pool.
        threads: of numeric libraries.
        log: what it prints beside the logs of its jobs.
        cores: it is bound to them; None leaves it where the launcher may be.
        gpu: the only accelerator it sees; None leaves it those of the launcher.
    """

    def __init__(
        self, number: int, threads: int, log: Path, cores: frozenset[int] | None = None, gpu: str | None = None
    ) -> None:
        self.number = number
        self.chain: str | None = None
        self.kills = memory.kills()  # Before it.
        self.socket, theirs = socket.socketpair()
        self._partial = b""
        environment = {**os.environ, **thread_environment(threads)}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        log.parent.mkdir(parents=True, exist_ok=True)
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                [*WORKER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # Ctrl-C is for the launcher alone.
            )
        if cores:
            with suppress(OSError):  # Not everywhere allowed; and it may have died.
                os.sched_setaffinity(self._process.pid, cores)

    def send(self, command: dict[str, Any]) -> None:
        with suppress(OSError):  # It died; reading from it says so.
            self.socket.sendall((json.dumps(command) + "\n").encode())

    def receive(self) -> list[dict[str, Any]] | None:
        """Events that have arrived; None once the worker is gone."""
        try:
            block = self.socket.recv(1 << 16)
        except OSError:
            block = b""
        if not block:
            return None
        *lines, self._partial = (self._partial + block).split(b"\n")
        return [json.loads(line) for line in lines]

    def kill(self) -> int:
        """End the process and return its exit status."""
        self._process.kill()
        self.socket.close()
        return self._process.wait()

    def wait(self) -> int:
        """Exit status of a process that is gone or going."""
        return self._process.wait()


@dataclass
class _Signals:
    """Signals received: the first asks to stop, the second kills."""

    count: int = 0
    number: int = signal.SIGINT
    wake: socket.socket | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.number = number


@contextmanager
def _caught_signals() -> Iterator[_Signals]:
    """Catch Ctrl-C and SIGTERM; a byte arrives at `wake` for each."""
    caught = _Signals()
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    caught.wake = reading
    old = {number: signal.signal(number, caught.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    previous = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        yield caught
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in old.items():
            signal.signal(number, handler)
        reading.close()
        writing.close()


@dataclass
class Pool:
    """Runs the chains of a schedule, each worker on its share of the cores and, where there are any, one accelerator.

    Args:
        store: for the logs.
        sweep: whose logs they are.
        schedule: what to run, in which order.
        jobs: job file of each chain.
        board: kept up to date.
        display: shows it.
        size: number of worker processes.
        threads: threads of each, at most: a job says how many it takes.
        retries: how often a chain whose worker died (out of memory, say) is resumed by another.
        on_run: called with the id of each run as it finishes.
    """

    store: Store
    sweep: str
    schedule: Schedule
    jobs: Mapping[str, Path]
    board: Board
    display: Display
    size: int
    threads: int
    retries: int
    on_run: Callable[[str], None]
    errors: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._workers: list[Worker] = []
        self._deaths: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()
        self._cores, self._gpus = core_sets(self.size), gpus()

    def run(self) -> int:
        """Work until nothing can be done any more.

        Returns:
            0: every chain is done. 1: some failed (see `errors`). 128 + n: stopped by signal n.
        """
        with _caught_signals() as signals:
            assert signals.wake is not None
            self._selector.register(signals.wake, selectors.EVENT_READ)
            draining = False
            try:
                while True:
                    if not draining:
                        self._assign()
                    if not self.schedule.running:
                        break
                    self.display.refresh()
                    for key, _ in self._selector.select(timeout=self.display.period):
                        if isinstance(key.data, Worker):
                            self._hear(key.data)
                        else:
                            signals.wake.recv(64)
                    if signals.count > 1:
                        break
                    if signals.count and not draining:
                        draining = True
                        self._drain()
            finally:
                for worker in self._workers:
                    worker.kill()
                self._selector.close()
        if signals.count:
            return 128 + signals.number
        return 1 if self.errors else 0

    def _assign(self) -> None:
        """Give every idle worker a chain, making workers as long as there are fewer than `size`."""
        while (chain := self.schedule.ready()) is not None:
            idle = next((worker for worker in self._workers if worker.chain is None), None)
            if idle is None:
                if len(self._workers) == self.size:
                    return
                idle = self._hire()
            idle.chain = chain
            self.schedule.start(chain)
            self.board.sit(idle.number, "", "starting")
            idle.send({"run": str(self.jobs[chain])})

    def _hire(self) -> Worker:
        taken = {worker.number for worker in self._workers}
        number = next(number for number in range(self.size) if number not in taken)
        cores = self._cores[number] if self._cores else None
        gpu = self._gpus[number % len(self._gpus)] if self._gpus else None
        log = self.store.jobs(self.sweep) / f"worker{number + 1}.log"
        worker = Worker(number, self.threads, log, cores, gpu)
        self._workers.append(worker)
        self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        return worker

    def _drain(self) -> None:
        self.display.say("stopping: each worker checkpoints at its next step (Ctrl-C again kills them)", "yellow")
        for worker in self._workers:
            worker.send({"stop": True})

    def _hear(self, worker: Worker) -> None:
        events = worker.receive()
        if events is None:
            self._bury(worker)
            return
        for event in events:
            match event["event"]:
                case "phase":
                    self._phase(worker, event["node"], event["phase"])
                case "tokens":
                    self.board.trained(worker.number, event["node"], event["tokens"])
                case "node":
                    self._node_done(worker, event["node"])
                case "outcome":
                    self._outcome(worker, Outcome(**{name: event[name] for name in ("state", "error", "log")}))

    def _phase(self, worker: Worker, node: str, phase: str) -> None:
        self.board.sit(worker.number, node, phase)
        if phase.startswith("waiting"):
            self.display.say(f"{self.board.name(node)}: {phase}", "yellow")

    def _node_done(self, worker: Worker, node: str) -> None:
        self.board.sit(worker.number, "", "starting")
        if node in self.board.finished:
            return
        done = self.board.finish(node)
        self.display.say(f"done: {self.board.name(node)}", "dim")
        for run in done:
            self.on_run(run)

    def _outcome(self, worker: Worker, outcome: Outcome) -> None:
        chain = worker.chain
        worker.chain = None
        self.board.sit(worker.number, "", "idle")
        if chain is None:
            return
        match outcome.state:
            case "done":
                self.schedule.finish(chain)
            case "stopped":
                self.schedule.put_back(chain)
            case "failed" | "cancelled":
                self._fail(chain, outcome)

    def _fail(self, chain: str, outcome: Outcome) -> None:
        self.errors[chain] = outcome
        for one in (chain, *self.schedule.fail(chain)):
            self.board.fail(one, "cancelled" if outcome.state == "cancelled" else "failed")
        style = "yellow" if outcome.state == "cancelled" else "red"
        self.display.say(f"{outcome.state}: {self.board.reached(chain)}: {outcome.error}", style)

    def _bury(self, worker: Worker) -> None:
        """A worker died: resume its chain with another, unless that keeps happening."""
        self._selector.unregister(worker.socket)
        self._workers.remove(worker)
        self.board.leave(worker.number)
        status = worker.wait()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        if status == -signal.SIGKILL and memory.ran_out(worker.kills):
            how = "out of memory; a smaller cluster.workers leaves more to each"
        chain = worker.chain
        if chain is None:
            return
        self._deaths[chain] = self._deaths.get(chain, 0) + 1
        if self._deaths[chain] <= self.retries:
            self.schedule.put_back(chain)
            self.display.say(f"a worker died ({how}); its chain is resumed", "yellow")
            return
        log = log_path(self.store, self.sweep, chain)
        outcome = Outcome(state="failed", error=f"the worker process died ({how})", log=str(log))
        with suppress(OSError):  # What a job says itself when it can: `status` reads it.
            write_json(failure_path(self.store, self.sweep, chain), outcome.model_dump())
        self._fail(chain, outcome)
