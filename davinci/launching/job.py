"""A job: one chain of nodes, frozen as JSON, and what running it means.

The launcher, its workers and Slurm hand each other nothing but the path of this file. torch is imported when a job
runs, never by importing this module.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from davinci.config import Evaluation, Frozen, Node, Positive, parse
from davinci.errors import UserError
from davinci.launching.lock import Lock, WaitAbandoned
from davinci.launching.reconcile import Remaining, done_mark, looks_whole, remaining
from davinci.store import Store, read_json, write_json
from davinci.tracking.records import Writer, read

REPORT_SECONDS = 0.3


class Job(Frozen):
    """One chain of nodes. `demands` gives, per node, the tokens since initialisation at which it is evaluated."""

    version: Literal[1] = 1
    sweep: str
    chain: str
    store: str
    threads: Positive
    nodes: tuple[Node, ...]
    demands: dict[str, tuple[int, ...]]
    evaluation: Evaluation


class Outcome(Frozen):
    """How a job ended. `error` is one line."""

    state: Literal["done", "stopped", "failed"]
    error: str | None = None
    log: str


class Interrupted(Exception):
    """The job was asked to stop; what it did so far is kept."""


# Tells the launcher how a job goes: plain JSON-like events, see `local`.
Report = Callable[[dict[str, Any]], None]


def read_job(path: Path) -> Job:
    return parse(Job, read_json(path), lambda key: str(path))


def log_path(store: Store, sweep: str, chain: str) -> Path:
    """Where a chain's output and tracebacks go."""
    return store.jobs(sweep) / f"{chain}.log"


def failure_path(store: Store, sweep: str, chain: str) -> Path:
    """Where a chain's failure is noted for `status`."""
    return store.jobs(sweep) / f"{chain}.failed.json"


def perform(path: Path, report: Report, should_stop: Callable[[], bool]) -> Outcome:
    """Run the job at `path`; what it prints, and the traceback of whatever it raises, go to its log."""
    job = read_job(path)
    store = Store(Path(job.store))
    log = log_path(store, job.sweep, job.chain)
    failure = failure_path(store, job.sweep, job.chain)
    with _output_to(log):
        print(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, process {os.getpid()} on {platform.node()}")
        try:
            run_job(job, report, should_stop)
        except Interrupted as error:
            print(f"stopped: {error}")
            return Outcome(state="stopped", log=str(log))
        except Exception as error:
            traceback.print_exc()
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            outcome = Outcome(state="failed", error=" ".join(f"{kind}{error}".split()), log=str(log))
            write_json(failure, outcome.model_dump())
            return outcome
    failure.unlink(missing_ok=True)
    return Outcome(state="done", log=str(log))


def run_job(job: Job, report: Report, should_stop: Callable[[], bool]) -> None:
    """Train and evaluate each node of the chain that is not finished, in order.

    Raises:
        Interrupted: `should_stop` turned true; the state is on disk.
        UserError: a mistake or a failed training, with what to do.
    """
    from davinci.training.loop import Stopped
    from davinci.training.numerics import configure

    configure(job.threads)
    store = Store(Path(job.store))
    for node in job.nodes:
        demanded = job.demands.get(node.id, ())

        def on_wait(owner: object, node: Node = node) -> None:
            report({"event": "phase", "node": node.id, "phase": f"waiting for {owner}, which holds this node"})

        if not _left(job, node, store).finished:
            lock = Lock(store.node(node.id), on_wait, should_stop)
            try:
                with lock:
                    _run_node(job, node, demanded, store, report, _either(lock, should_stop))
            except (Stopped, WaitAbandoned) as error:
                raise Interrupted(str(error) or "asked to stop") from None
        report({"event": "node", "node": node.id})


def _either(lock: Lock, should_stop: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: lock.lost or should_stop()


def _left(job: Job, node: Node, store: Store, deep: bool = False) -> Remaining:
    from davinci.evaluation.evaluate import settings_digest
    from davinci.training.checkpoints import is_valid

    demanded = job.demands.get(node.id, ())
    settings = settings_digest(node, job.evaluation, store)
    return remaining(node, demanded, job.evaluation, settings, store, is_valid if deep else looks_whole)


def _run_node(
    job: Job,
    node: Node,
    demanded: tuple[int, ...],
    store: Store,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    from davinci.model.weights import weights_digest
    from davinci.training.loop import train

    left = _left(job, node, store, deep=True)  # Again: who held the lock may have finished it.
    if left.finished:
        return
    previous = done_mark(node.id, store)
    attempt = 1 + max((row["attempt"] for row in read(store.records(node.id))), default=0)
    write_json(store.node(node.id) / "node.json", node.model_dump(mode="json"))
    if left.train:
        for one in left.discard:
            _discard(store.checkpoint(node.id, one))
        if left.start == node.begin:
            _check_parent(node, store)
        report({"event": "phase", "node": node.id, "phase": "training"})
        train(
            node,
            store,
            checkpoints=demanded,
            attempt=attempt,
            progress=_Throttled(node.id, report),
            should_stop=should_stop,
            heldout_sequences=job.evaluation.heldout_sequences,
        )
        left = _left(job, node, store, deep=True)
        if left.train:
            raise RuntimeError(f"training of {node.id} ended without all it was asked for: {left}")
    for tokens in left.evaluations:
        if should_stop():
            raise Interrupted("asked to stop")
        report({"event": "phase", "node": node.id, "phase": "evaluating"})
        _evaluate(job, node, tokens, attempt, store)
    digest = weights_digest(store.checkpoint(node.id, node.end))
    if previous is not None and previous["weights_digest"] != digest:
        print(
            f"warning: {node.id} was trained again and gave other weights ({previous['weights_digest'][:12]} before, "
            f"{digest[:12]} now): torch or the machine changed",
            flush=True,
        )
    rows = read(store.records(node.id))
    write_json(
        store.node(node.id) / "done.json",
        {
            "version": 1,
            "node": node.id,
            "begin": node.begin,
            "end": node.end,
            "weights_digest": digest,
            "attempt": attempt,
            "train_rows": sum(1 for row in rows if row["kind"] == "train" and node.begin <= row["tokens"] <= node.end),
            "replay_differs": previous is not None and previous["weights_digest"] != digest,
        },
    )


def _evaluate(job: Job, node: Node, tokens: int, attempt: int, store: Store) -> None:
    """Evaluate one checkpoint and append its rows."""
    from davinci.evaluation.evaluate import evaluate, items_file, settings_digest

    checkpoint = store.checkpoint(node.id, tokens)
    step = int(read_json(checkpoint / "state.json")["global_step"])
    results = evaluate(checkpoint, node, job.evaluation, store)
    settings = settings_digest(node, job.evaluation, store)
    with Writer(store.records(node.id), attempt) as writer:
        for result in results:
            writer.write(
                "evaluation",
                tokens,
                step,
                benchmark=result.benchmark,
                domain=result.domain,
                protocol=result.protocol,
                metric=result.metric,
                score=float(result.score),
                items=result.items,
                chance=result.chance,
                key=result.key,
                items_file=str(items_file(store, node, result.key).relative_to(store.node(node.id))),
                settings=settings,
            )


def _discard(checkpoint: Path) -> None:
    """Remove a checkpoint; it leaves its name at once."""
    removed = checkpoint.with_name(f".removed-{checkpoint.name}-{os.getpid()}")
    checkpoint.rename(removed)
    shutil.rmtree(removed)


def _check_parent(node: Node, store: Store) -> None:
    """Refuse to start from a damaged checkpoint of the parent, and see to it that the next launch makes it again."""
    from davinci.training.checkpoints import is_valid

    if node.parent is None:
        return
    checkpoint = store.checkpoint(node.parent, node.begin)
    if not is_valid(checkpoint):
        (store.node(node.parent) / "done.json").unlink(missing_ok=True)
        if checkpoint.is_dir():
            _discard(checkpoint)
        raise UserError(f"{checkpoint}: missing or damaged; run the same command again to train {node.parent} again")


class _Throttled:
    """Forwards progress a few times a second."""

    def __init__(self, node: str, report: Report) -> None:
        self._node = node
        self._report = report
        self._next = 0.0

    def __call__(self, tokens: int, tokens_per_second: float, loss: float) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_SECONDS
            self._report({"event": "tokens", "node": self._node, "tokens": tokens, "loss": loss})


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what Python and C libraries print to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    saved = os.dup(1), os.dup(2)
    with log.open("a", buffering=1, encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            for number, copy in enumerate(saved, start=1):
                os.dup2(copy, number)
                os.close(copy)
