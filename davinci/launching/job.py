"""A job: one chain of nodes, frozen as JSON, and what running it means.

The launcher, its workers and Slurm hand each other nothing but the path of this file. torch is imported when a job
runs, never by importing this module.
"""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from davinci.config import Cluster, Evaluation, Frozen, Node, Positive, parse
from davinci.errors import RankLost, UserError
from davinci.launching.cancelled import Cancelled, Watch
from davinci.launching.demands import Demand, Probing
from davinci.launching.donors import Donor, take_over
from davinci.launching.evaluating import (
    Halted,
    NoCheckpoint,
    evaluate_lacking,
    evaluate_state,
    evaluated,
    is_kept,
    still_evaluated,
)
from davinci.launching.lock import Lock, WaitAbandoned
from davinci.launching.parents import discard
from davinci.launching.reconcile import (
    Asked,
    Remaining,
    asked_of,
    done_mark,
    is_settled,
    remaining,
    rows_lost,
    train_rows,
    unprobed,
)
from davinci.launching.snapshot import program
from davinci.launching.tasks import Task, is_trained
from davinci.store import Store, read_json, write_json
from davinci.tracking.records import read

if TYPE_CHECKING:
    from davinci.evaluation.probes import Probe
    from davinci.training.adaptive import Benchmark
    from davinci.training.distributed import Ranks

REPORT_SECONDS = 0.3


class Job(Frozen):
    """One chain of nodes.

    `after` names the chain it starts from. `cluster` is where it runs, on the snapshot `code` of the program (None:
    what is installed). `demands` gives, by node, what is evaluated; `suites` the suites by their key. `donors` gives,
    by node, others that hold states of it (see `donors`). `probes` gives, by node, what is scored while it trains.
    `task` says whether the job trains, evaluates, or does both.
    """

    version: Literal[3] = 3
    sweep: str
    chain: str
    after: str | None
    store: str
    cluster: Cluster
    code: str | None
    nodes: tuple[Node, ...]
    demands: dict[str, tuple[Demand, ...]]
    suites: dict[str, Evaluation]
    heldout_sequences: Positive
    donors: dict[str, tuple[Donor, ...]]
    probes: dict[str, tuple[Probing, ...]] = Field(default_factory=dict)
    task: Task = "all"


class Outcome(Frozen):
    """How a job ended. `error` is one line."""

    state: Literal["done", "stopped", "failed", "cancelled"]
    error: str | None = None
    log: str


class Interrupted(Exception):
    """The job was asked to stop; what it did so far is kept."""


# Tells the launcher how a job goes: plain JSON-like events, see `local`.
Report = Callable[[dict[str, Any]], None]


def read_job(path: Path) -> Job:
    return parse(Job, read_json(path), lambda key: str(path))


def job_path(store: Store, sweep: str, chain: str) -> Path:
    """Where a chain's job is."""
    return store.jobs(sweep) / f"{chain}.json"


def log_path(store: Store, sweep: str, chain: str) -> Path:
    """Where a chain's output and tracebacks go."""
    return store.jobs(sweep) / f"{chain}.log"


def failure_path(store: Store, sweep: str, chain: str) -> Path:
    """Where a chain's failure is noted for `status`."""
    return store.jobs(sweep) / f"{chain}.failed.json"


def perform(path: Path, report: Report, should_stop: Callable[[], bool], ranks: Ranks | None = None) -> Outcome:
    """Run the job at `path`; what it prints, and the traceback of whatever it raises, go to its log.

    With `ranks`, this is the first of them (see `ranks`). Raises RankLost where another is gone.
    """
    job = read_job(path)
    store = Store(Path(job.store))
    log = log_path(store, job.sweep, job.chain)
    failure = failure_path(store, job.sweep, job.chain)
    with _output_to(log):
        cancelled = Watch(store, job.sweep, job.chain)
        try:
            print(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, process {os.getpid()} on {platform.node()}")
            cancelled.check()
            try:
                run_job(job, report, lambda: should_stop() or cancelled(), ranks)
            except Interrupted:
                cancelled.check()
                raise
        except Interrupted as error:
            print(f"stopped: {error}")
            return Outcome(state="stopped", log=str(log))
        except RankLost as error:
            print(f"stopped: {error}")
            raise
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            state: Literal["cancelled", "failed"] = "cancelled" if isinstance(error, Cancelled) else "failed"
            outcome = Outcome(state=state, error=" ".join(f"{kind}{error}".split()), log=str(log))
            with suppress(OSError):  # Where the disk is full, the outcome is still returned.
                if isinstance(error, Cancelled):
                    print(f"stopped: {error}")
                else:
                    traceback.print_exc()
            with suppress(OSError):
                write_json(failure, outcome.model_dump())
            return outcome
    failure.unlink(missing_ok=True)
    return Outcome(state="done", log=str(log))


def run_job(job: Job, report: Report, should_stop: Callable[[], bool], ranks: Ranks | None = None) -> None:
    """Train and evaluate each node of the chain that is not finished, in order.

    With `ranks`, this is the first of them: the others train beside it.

    Raises:
        Interrupted: `should_stop` turned true; the state is on disk.
        UserError: a mistake or a failed training, with what to do.
    """
    from davinci.training.loop import Stopped
    from davinci.training.numerics import configure

    configure(job.cluster.threads)
    program()  # Its digest is taken before anyone edits what runs here.
    store = Store(Path(job.store))
    if job.task == "early":
        _evaluate_early(job, store, should_stop)
        return
    for node in job.nodes:

        def on_wait(owner: object, node: Node = node) -> None:
            report({"event": "phase", "node": node.id, "phase": f"waiting for {owner}, which holds this node"})

        asked, probing = _asked(job, node, store), job.probes.get(node.id, ())
        if job.task == "evaluate":
            _evaluate_node(node, asked, store, report, should_stop, on_wait)
            _prune(job, node, store)
        elif not (
            is_settled(node, asked, store, probing) or _is_done(job, remaining(node, asked, store, probing=probing))
        ):
            if should_stop():
                raise Interrupted("asked to stop")
            while True:
                lock = Lock(store.node(node.id), on_wait, should_stop)
                try:
                    with lock:
                        _run_node(job, node, store, report, _either(lock, should_stop), ranks)
                    break
                except (Stopped, WaitAbandoned, Interrupted) as error:
                    if not lock.lost:
                        raise Interrupted(str(error) or "asked to stop") from None
                    # Somebody took the node over, believing this process dead: wait for them to finish it.
            _prune(job, node, store)
        if job.task == "train" and not is_settled(node, asked, store, probing):
            report({"event": "tokens", "node": node.id, "tokens": node.end})  # Its evaluation is another job's.
        else:
            report({"event": "node", "node": node.id})


def _is_done(job: Job, left: Remaining) -> bool:
    """Whether nothing is left that is this job's to do."""
    return is_trained(left) if job.task == "train" else left.finished


def _evaluate_node(
    node: Node,
    asked: Sequence[Asked],
    store: Store,
    report: Report,
    should_stop: Callable[[], bool],
    on_wait: Callable[[object], None],
) -> None:
    """Make the evaluations of a trained node that are lacking."""

    def begin(one: Asked) -> None:
        report({"event": "phase", "node": node.id, "phase": "evaluating"})

    try:
        while evaluate_lacking(node, asked, store, should_stop, on_wait, begin):
            if should_stop():
                raise Interrupted("asked to stop")
    except WaitAbandoned as error:
        raise Interrupted(str(error) or "asked to stop") from None
    except NoCheckpoint as error:
        raise UserError(f"{error}: it is not trained, or it was removed; launch the sweep again") from None


def _evaluate_early(job: Job, store: Store, should_stop: Callable[[], bool]) -> None:
    from davinci.launching import early

    try:
        early.evaluate(
            lambda: [(node, one) for node in job.nodes for one in _asked(job, node, store)], store, should_stop
        )
    except Halted as error:
        raise Interrupted(str(error)) from None


def _early(job: Job, node: Node, asked: Sequence[Asked], store: Store) -> Callable[[int], None]:
    """What has the states of a node evaluated while its chain trains, where that is done."""
    if job.task != "train" or job.cluster.kind != "slurm":
        return lambda tokens: None
    from davinci.launching.early import Herald

    return Herald(job, node.id, asked, store)


def _prune(job: Job, node: Node, store: Store) -> None:
    """Remove what was there only to be evaluated, where the sweep says so."""
    if any(job.suites[demand.suite].keep == "last" for demand in job.demands.get(node.id, ())):
        from davinci.launching.superfluous import prune

        prune(node.id, store)


def _either(lock: Lock, should_stop: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: lock.lost or should_stop()


def _asked(job: Job, node: Node, store: Store) -> list[Asked]:
    """What the job asks of a node, under the settings that hold now."""
    return asked_of(node, job.demands.get(node.id, ()), job.suites, store, {})


def _run_node(
    job: Job, node: Node, store: Store, report: Report, should_stop: Callable[[], bool], ranks: Ranks | None
) -> None:
    from davinci.model.weights import weights_digest
    from davinci.training.accelerators import require_gpus
    from davinci.training.checkpoints import is_valid
    from davinci.training.loop import train

    asked, probing = _asked(job, node, store), job.probes.get(node.id, ())
    due = {node.end, *(one.demand.tokens for one in asked)}
    left = remaining(node, asked, store, is_valid, probing)  # Again: who held the lock may have finished it.
    if _is_done(job, left):
        return
    previous = done_mark(node.id, store)
    rows = read(store.records(node.id))
    attempt = 1 + max((row["attempt"] for row in rows), default=0)
    if previous is None or _begin(node, previous, rows) == node.begin:
        write_json(store.node(node.id) / "node.json", node.model_dump(mode="json"))
    if left.train:
        for tokens in left.discard:
            discard(store.checkpoint(node.id, tokens))
        if previous is not None and rows_lost(previous, node, rows):
            (store.node(node.id) / "done.json").unlink()  # What it vouched for is gone.
        if node.id in job.donors:
            take_over(node, job.donors[node.id], due, attempt, store)
            left = remaining(node, asked, store, is_valid, probing)
    if left.train:
        if left.start == node.begin:
            _check_parent(node, store)
        reached = _early(job, node, asked, store)
        called = {} if ranks is None else {"ranks": _called(ranks, node, sorted(due))}
        require_gpus(job.cluster.gpus_per_node, **called)
        report({"event": "phase", "node": node.id, "phase": "training"})
        train(
            node,
            store,
            checkpoints=sorted(due),
            attempt=attempt,
            progress=_Throttled(node.id, report, reached),
            should_stop=should_stop,
            heldout_sequences=job.heldout_sequences,
            probes=probes(job, node, store, left),
            benchmark=_watched(node, store),
            execution=job.cluster,
            **called,
        )
        left = remaining(node, asked, store, is_valid, probing)
        if left.train:
            raise RuntimeError(f"training of {node.id} ended without all it was asked for: {left}")
        if node.id != job.nodes[-1].id:
            reached(node.end + 1)
    for one in asked:
        if one.demand not in left.evaluations or (job.task == "train" and not is_kept(one, node, store)):
            continue
        if should_stop():
            raise Interrupted("asked to stop")
        report({"event": "phase", "node": node.id, "phase": "evaluating"})
        try:
            evaluate_state(one, node, attempt, store, should_stop)
        except Halted as error:
            raise Interrupted(str(error)) from None
    digest = weights_digest(store.checkpoint(node.id, node.end))
    differs = previous is not None and previous["weights_digest"] != digest
    if previous is not None and differs:
        print(
            f"warning: {node.id} was trained again and gave other weights ({previous['weights_digest'][:12]} before, "
            f"{digest[:12]} now): torch or the machine changed",
            flush=True,
        )
    mark_done(node, asked, previous, digest, attempt, store, probing)


def probes(job: Job, node: Node, store: Store, left: Remaining | None = None) -> list[Probe]:
    """The probes of a node, for its training, and where of `left` they are lacking."""
    if not job.probes.get(node.id):
        return []
    from davinci.evaluation.probes import Probe

    lacking = {} if left is None else left.probes
    return [Probe(one.key, one.every_tokens, lacking.get(one.key, ()), node, store) for one in job.probes[node.id]]


def _watched(node: Node, store: Store) -> Benchmark | None:
    """What scores the benchmark that decides where the stage of `node` ends, if one does."""
    if node.benchmark is None:
        return None
    from davinci.evaluation.watched import Watched

    return Watched(node, node.benchmark, store).score


def _called(ranks: Ranks, node: Node, checkpoints: Sequence[int]) -> Ranks:
    """Call the other ranks to train `node`."""
    with ranks.blamed():
        ranks.share((node.id, checkpoints))
    return ranks


def mark_done(
    node: Node,
    asked: Sequence[Asked],
    previous: dict[str, Any] | None,
    digest: str,
    attempt: int,
    store: Store,
    probing: Sequence[Probing] = (),
) -> None:
    """Write done.json: what was asked and is there, and the size of the records that say so (see `reconcile`)."""
    size = store.records(node.id).stat().st_size  # Before reading: what comes later is not vouched for.
    rows = read(store.records(node.id))
    begin = node.begin if previous is None else _begin(node, previous, rows)
    new = evaluated(rows, asked, node, store)
    write_json(
        store.node(node.id) / "done.json",
        {
            "version": 2,
            "node": node.id,
            "begin": begin,
            "end": node.end,
            "weights_digest": digest,
            "attempt": attempt,
            "train_rows": train_rows(rows, begin, node.end),
            "worlds": sorted(
                {row.get("world", 1) for row in rows if row["kind"] == "train" and begin < row["tokens"] <= node.end}
            ),
            "replay_differs": previous is not None and previous["weights_digest"] != digest,
            "records_bytes": size,
            "environment": _environment(node, previous, digest, store),
            "spikes": sum(row["kind"] == "spike" and begin < row["tokens"] <= node.end for row in rows),
            "heldout": sorted({row["tokens"] for row in rows if row["kind"] == "heldout"}),
            "evaluated": new + still_evaluated(previous, new, rows),
            "probed": [one.model_dump() for one in _probed(previous, probing) if not unprobed(node, (one,), rows)],
        },
    )


def _environment(node: Node, previous: dict[str, Any] | None, digest: str, store: Store) -> dict[str, Any]:
    """On what the weights were computed, as their checkpoint says, and by which program: kept while the weights are."""
    if previous is not None and previous["weights_digest"] == digest and "environment" in previous:
        found: dict[str, Any] = previous["environment"]
        return found
    try:
        values: dict[str, Any] = read_json(store.checkpoint(node.id, node.end) / "state.json").get("numerics", {})
    except FileNotFoundError:
        values = {}
    # Weights that were there before this program are not its own.
    return values | ({"code": program()} if previous is None else {})


def _probed(previous: dict[str, Any] | None, probing: Sequence[Probing]) -> list[Probing]:
    """What probes are asked of a node, and were before by another sweep."""
    before = [parse(Probing, one) for one in (previous or {}).get("probed", [])]
    return [*probing, *(one for one in before if one not in probing)]


def _begin(node: Node, mark: dict[str, Any], rows: Sequence[dict[str, Any]]) -> int:
    """Where the node's recorded stretch begins: earlier than it is planned now, if a plan before did not cut there."""
    return node.begin if rows_lost(mark, node, rows) else int(mark["begin"])


def _check_parent(node: Node, store: Store) -> None:
    """Refuse to start from a damaged checkpoint of the parent, and see to it that the next launch makes it again."""
    from davinci.training.checkpoints import is_valid

    if node.parent is None:
        return
    checkpoint = store.checkpoint(node.parent, node.begin)
    if not is_valid(checkpoint):
        if checkpoint.is_dir():
            discard(checkpoint)
        raise UserError(f"{checkpoint}: missing or damaged; run the same command again to train {node.parent} again")


class _Throttled:
    """Forwards progress a few times a second, and tells `reached` of all of it."""

    def __init__(self, node: str, report: Report, reached: Callable[[int], None]) -> None:
        self._node = node
        self._report = report
        self._reached = reached
        self._next = 0.0

    def __call__(self, tokens: int, tokens_per_second: float, loss: float) -> None:
        self._reached(tokens)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_SECONDS
            self._report({"event": "tokens", "node": self._node, "tokens": tokens, "loss": loss})


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what Python and C libraries print to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    saved = os.dup(1), os.dup(2)
    file = log.open("a", buffering=1, encoding="utf-8")
    try:
        with redirect_stdout(file), redirect_stderr(file):
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                for number, copy in enumerate(saved, start=1):
                    os.dup2(copy, number)
                    os.close(copy)
    finally:
        with suppress(OSError):  # What a full disk kept from being written goes.
            file.close()
