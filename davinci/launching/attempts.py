"""How often a chain's job died: ``jobs/<sweep>/<chain>.attempts.json``.

A job notes that it began and that it ended, or was asked to. One that finds its predecessor's beginning without an end
knows that it died with its node.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from davinci.config import Frozen, NotNegative, parse
from davinci.errors import UserError
from davinci.launching.reconcile import checkpoints
from davinci.store import Store, read_json, write_json

# How far a chain is: nodes marked done, tokens of its newest checkpoint, evaluated suites, benchmarks of others.
Stand = tuple[int, int, int, int]

# A job is told to stop while it works.
_turn = threading.Lock()


class Attempts(Frozen):
    """`count` deaths so far, the last one's `reason`, and whether a job is at work (`open`).

    `stand` is how far the chain was when the newest job began its work; None while it waits for its turn.
    """

    count: NotNegative = 0
    reason: str | None = None
    open: bool = False
    stand: Stand | None = None


def attempts_path(store: Store, sweep: str, chain: str) -> Path:
    return store.jobs(sweep) / f"{chain}.attempts.json"


def standing(nodes: Iterable[str], store: Store) -> Stand:
    """How far a chain of `nodes` is."""
    nodes = list(nodes)
    return (
        sum((store.node(node) / "done.json").is_file() for node in nodes),
        max((tokens for node in nodes for tokens in checkpoints(node, store)), default=0),
        sum(len(list(store.node(node).glob("evaluations/*.parquet"))) for node in nodes),
        sum(len(list(store.node(node).glob("evaluations/*.benchmark"))) for node in nodes),
    )


def read_attempts(path: Path) -> Attempts:
    try:
        return parse(Attempts, read_json(path), lambda key: str(path))
    except (OSError, UserError):
        return Attempts()


def begin(path: Path, excused: Callable[[], bool] = lambda: False) -> Attempts:
    """Note that a job begins; a predecessor that never ended counts as a death, unless `excused` knows better."""
    found = read_attempts(path)
    if found.open and not excused():
        found = Attempts(count=found.count + 1, reason="its node failed, or it was killed with its batch script")
    _write(path, found.model_copy(update={"open": True, "stand": None}))
    return found


def work(path: Path, stand: Stand | None) -> None:
    """Note that the job works, from `stand` on; or with None that it waits."""
    with _turn:
        found = read_attempts(path)
        if found.stand != stand:
            _write(path, found.model_copy(update={"stand": stand}))


def end(path: Path) -> None:
    """Note that the job ends in good order, or is about to."""
    with _turn:
        found = read_attempts(path)
        if found.open:
            _write(path, found.model_copy(update={"open": False}))


def died(path: Path, reason: str) -> Attempts:
    """Count a death."""
    found = Attempts(count=read_attempts(path).count + 1, reason=reason)
    _write(path, found)
    return found


def _write(path: Path, attempts: Attempts) -> None:
    with suppress(OSError):  # A full disk: what counts is the work.
        write_json(path, attempts.model_dump())
