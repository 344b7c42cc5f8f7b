"""Evaluations of a node's states: made where they are lacking, recorded, and vouched for in its done.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from davinci.config import Node
from davinci.launching.lock import Lock
from davinci.launching.reconcile import Asked, done_mark, evaluation_files, looks_whole, rows_lost
from davinci.store import Store, read_json, write_json
from davinci.tracking.records import Writer, read


class NoCheckpoint(Exception):
    """The state that should be evaluated is not on the disk."""


class Halted(Exception):
    """Asked to stop between two benchmarks of a suite; those that are done are kept."""


def prepare(threads: int) -> None:
    """Set this process up as a job's is, so that scores agree to the last bit."""
    from davinci.training.numerics import configure

    configure(threads)


def evaluate_state(
    asked: Asked, node: Node, attempt: int, store: Store, should_stop: Callable[[], bool] = lambda: False
) -> list[Any]:
    """Evaluate one state of `node` on one suite and append its rows; the caller holds the node's lock.

    Returns:
        The `evaluation.Result` of each benchmark.

    Raises:
        Halted: `should_stop` turned true before the suite was through.
    """
    from davinci.evaluation.evaluate import items_file

    tokens = asked.demand.tokens
    step = int(read_json(store.checkpoint(node.id, tokens) / "state.json")["global_step"])
    results = results_of(asked, node, store, should_stop)
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
                suite=asked.demand.suite,
                settings=asked.settings,
                **({} if result.seconds is None else {"seconds": result.seconds}),
                **({"truncated": result.truncated} if result.truncated else {}),
                **({"outcomes": result.outcomes} if result.outcomes else {}),
            )
            if result.outcomes:
                ends = ", ".join(f"{times} {kind}" for kind, times in sorted(result.outcomes.items()))
                print(f"{result.benchmark}: of the programs that the model wrote {ends}")
            if result.truncated:
                print(f"{result.benchmark}: {result.truncated} of {result.items} items did not fit the model's context")
    return results


def results_of(asked: Asked, node: Node, store: Store, should_stop: Callable[[], bool] = lambda: False) -> list[Any]:
    """The `evaluation.Result` of each benchmark, computed unless they are kept; needs no lock, and records nothing.

    Raises:
        Halted: `should_stop` turned true before the suite was through.
    """
    from davinci.evaluation.evaluate import evaluate

    checkpoint = store.checkpoint(node.id, asked.demand.tokens)

    def between() -> None:
        if should_stop():
            raise Halted(f"{node.id} at {asked.demand.tokens} tokens: asked to stop")

    return evaluate(checkpoint, node, asked.evaluation, store, _weights(asked, node, store), between)


def is_kept(asked: Asked, node: Node, store: Store) -> bool:
    """Whether the results are kept already, recorded or not."""
    from davinci.evaluation.evaluate import is_kept

    return is_kept(_weights(asked, node, store), node, asked.evaluation, store)


def _weights(asked: Asked, node: Node, store: Store) -> list[Path]:
    """The files of weights that are evaluated, or whose mean is."""
    from davinci.model.weights import AVERAGE, WEIGHTS

    file = AVERAGE if asked.demand.weights == "average" else WEIGHTS
    states = [(state.node, state.tokens) for state in asked.demand.states] or [(node.id, asked.demand.tokens)]
    return [store.checkpoint(*state) / file for state in states]


def evaluate_lacking(
    node: Node,
    asked: Sequence[Asked],
    store: Store,
    should_stop: Callable[[], bool] = lambda: False,
    on_wait: Callable[[object], None] = lambda owner: None,
    on_state: Callable[[Asked], None] = lambda one: None,
) -> bool:
    """Evaluate those of `asked` that are not recorded, under the node's lock, and have done.json vouch for them.

    Each benchmark is kept as soon as it is done, so that whoever goes on does only the others.

    Returns:
        Whether some are lacking still: `should_stop` turned true, or the lock was lost to someone else.

    Raises:
        NoCheckpoint: a state that is not on the disk.
        WaitAbandoned: `should_stop` turned true while someone else held the node.
    """
    if not _lacking(node, asked, store):
        return False
    with Lock(store.node(node.id), on_wait, should_stop) as lock:
        attempt = max((row["attempt"] for row in read(store.records(node.id))), default=1)

        def is_over() -> bool:
            return lock.lost or should_stop()

        for one in _lacking(node, asked, store):  # Again: who held the lock may have made some.
            if is_over():
                return True
            if not looks_whole(store.checkpoint(node.id, one.demand.tokens)):
                raise NoCheckpoint(f"{node.id} has no checkpoint at {one.demand.tokens} tokens")
            on_state(one)
            try:
                evaluate_state(one, node, attempt, store, is_over)
            except Halted:
                return True
        _vouch(node, asked, store)
    return False


def rows_of(node: Node, asked: Asked, store: Store) -> list[dict[str, Any]]:
    """The recorded rows that meet `asked`, in the suite's order; none where some are lacking."""
    rows = read(store.records(node.id), "evaluation")
    if evaluation_files(rows, asked, node, store) is None:
        return []
    found = {
        row["benchmark"]: row
        for row in rows
        if row["tokens"] == asked.demand.tokens and row.get("suite") == asked.demand.suite
    }
    return [found[name] for name in asked.evaluation.benchmarks]


def evaluated(rows: Sequence[dict[str, Any]], asked: Sequence[Asked], node: Node, store: Store) -> list[dict[str, Any]]:
    """What done.json says of `asked`: for each, the files of per-item results; those not evaluated are left out."""
    found = [(one, evaluation_files(rows, one, node, store)) for one in asked]
    return [
        {"tokens": one.demand.tokens, "suite": one.demand.suite, "settings": one.settings, "files": files}
        for one, files in found
        if files is not None
    ]


def still_evaluated(
    previous: dict[str, Any] | None, new: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What was asked of the node before, by another sweep or on demand, where its rows stand."""
    mine = {(one["tokens"], one["suite"]) for one in new}
    stand = {
        (row["tokens"], row.get("suite"), row.get("settings"), row["items_file"])
        for row in rows
        if row["kind"] == "evaluation"
    }
    return [
        one
        for one in (previous or {}).get("evaluated", [])
        if (one["tokens"], one["suite"]) not in mine
        and all((one["tokens"], one["suite"], one["settings"], file) in stand for file in one["files"])
    ]


def _lacking(node: Node, asked: Sequence[Asked], store: Store) -> list[Asked]:
    rows = read(store.records(node.id), "evaluation")
    return [one for one in asked if evaluation_files(rows, one, node, store) is None]


def _vouch(node: Node, asked: Sequence[Asked], store: Store) -> None:
    """Have done.json, where there is one, say what was evaluated since, so that it is believed without a look."""
    mark, records = done_mark(node.id, store), store.records(node.id)
    if mark is None:
        return
    size = records.stat().st_size  # Before reading: what comes later is not vouched for.
    rows = read(records)
    if rows_lost(mark, node, rows):
        return
    new = evaluated(rows, asked, node, store)
    mark |= {"records_bytes": size, "evaluated": new + still_evaluated(mark, new, rows)}
    write_json(store.node(node.id) / "done.json", mark)
