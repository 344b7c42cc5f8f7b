"""When runs will be done: speeds taken from the records, and the plan's tree played through with them.

A forecast, not a promise: the start of workers, checkpoints and a queue's waiting time are not in it.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from davinci.accounting.flops import train_flops_per_token
from davinci.config import Node
from davinci.launching.reconcile import Remaining
from davinci.launching.schedule import Schedule
from davinci.planning.plan import Chain, Plan
from davinci.store import Store

# What is read of a node's records: enough for its newest train rows and a suite's evaluations.
TAIL_BYTES = 1 << 16
# A node's speed is the mean of this many of its newest train rows.
ROWS_AVERAGED = 5
# Finished nodes looked at for every size of model (and sequence length).
FINISHED_LOOKED_AT = 4


@dataclass(frozen=True)
class Tail:
    """The end of a node's records.

    Attributes:
        tokens: the newest train row's, since initialisation; None where there is none.
        speed: tokens a second of the newest train rows; None where none says it.
        evaluations: seconds of each evaluation, with the key of its suite.
        evaluated: tokens and suite's key of each evaluation, timed or not.
        since: time of the newest row, in seconds since 1970.
        spikes: steps among them that stood far above those before.
    """

    tokens: int | None
    speed: float | None
    evaluations: tuple[tuple[str, float], ...]
    evaluated: frozenset[tuple[int, str]]
    since: float | None
    spikes: int = 0


def tail(path: Path) -> Tail:
    """Read the end of a node's records."""
    rows = list(_rows(path))
    trained = [row for row in rows if row["kind"] == "train"]
    speeds = [row["tokens_per_second"] for row in trained[-ROWS_AVERAGED:] if row.get("tokens_per_second")]
    evaluations = []
    for before, row in pairwise(rows):
        # An evaluation's rows are written together when it ends; its first one follows what was before it began.
        new = row["kind"] == "evaluation" and (before["kind"], before["tokens"], before.get("suite")) != (
            "evaluation",
            row["tokens"],
            row.get("suite"),
        )
        if new and before["attempt"] == row["attempt"]:
            evaluations.append((str(row.get("suite")), max(0.0, row["time"] - before["time"])))
    return Tail(
        tokens=trained[-1]["tokens"] if trained else None,
        speed=sum(speeds) / len(speeds) if speeds else None,
        evaluations=tuple(evaluations),
        evaluated=frozenset((row["tokens"], str(row.get("suite"))) for row in rows if row["kind"] == "evaluation"),
        since=rows[-1]["time"] if rows else None,
        spikes=len({row["tokens"] for row in rows if row["kind"] == "spike"}),
    )


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    """Rows at the end of the file that tell something, in the order they were written; torn ones are skipped."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return
    # Long stretches of train rows say nothing but at their end.
    train = [b'"kind": "train"' in line for line in lines] + [False]
    for place, line in enumerate(lines):
        if train[place] and train[place + 1] and place < len(lines) - 2 * ROWS_AVERAGED:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.keys() >= {"kind", "attempt", "tokens", "time"}:
            yield row


@dataclass
class Pace:
    """Measured speeds: tokens a second by FLOPs a token, seconds of an evaluation by suite."""

    _training: dict[float, list[float]] = field(default_factory=dict)
    _evaluating: dict[str, list[float]] = field(default_factory=dict)

    def learn(self, node: Node, measured: Tail) -> None:
        """Take a node's records into account."""
        if measured.speed:
            self._training.setdefault(_flops(node), []).append(measured.speed)
        for suite, seconds in measured.evaluations:
            self._evaluating.setdefault(suite, []).append(seconds)

    @property
    def known(self) -> bool:
        return bool(self._training)

    def training(self, node: Node, tokens: int) -> float:
        """Seconds of training `tokens` of `node`: as nodes like it, else as the nearest in size at the same FLOP/s."""
        own = _flops(node)
        like = min(self._training, key=lambda flops: abs(flops - own))
        return tokens * (own / like) / _mean(self._training[like])

    def evaluating(self, suite: str) -> float:
        """Seconds of an evaluation on `suite`: of any suite where none on it was seen, 0 where none at all was."""
        seen = self._evaluating.get(suite) or [one for times in self._evaluating.values() for one in times]
        return _mean(seen) if seen else 0.0


def pace(plan: Plan, left: Mapping[str, Remaining], running: Mapping[str, Tail], store: Store) -> Pace:
    """Speeds of the nodes that run, and of some of those finished."""
    found = Pace()
    for name, measured in running.items():
        found.learn(plan.nodes[name], measured)
    looked: dict[float, int] = {}
    for node in reversed(plan.nodes.values()):
        if left[node.id].finished and node.id not in running:
            flops = _flops(node)
            looked[flops] = looked.get(flops, 0) + 1
            if looked[flops] <= FINISHED_LOOKED_AT:
                found.learn(node, tail(store.records(node.id)))
    return found


def seconds_left(node: Node, left: Remaining, running: Tail | None, pace: Pace) -> float:
    """Seconds of work left on a node; `running` is the end of its records where someone works on it."""
    at = left.start
    if running is not None and running.tokens is not None and left.train:
        at = min(max(at, running.tokens), node.end)
    seconds = pace.training(node, node.end - at) + sum(pace.evaluating(one.suite) for one in left.evaluations)
    if running is not None and running.since is not None and left.evaluations and at == node.end:
        # The evaluation going on began when the newest row was written. Only what is shown depends on the clocks.
        spent = max(0.0, time.time() - running.since)
        seconds -= min(spent, pace.evaluating(left.evaluations[0].suite))
    return seconds


def finish_times(
    chains: Iterable[Chain], seconds: Mapping[str, float], running: Collection[str], workers: int
) -> dict[str, float]:
    """Seconds until each chain is done, with at most `workers` at once, the most urgent first.

    Args:
        chains: parents before children; those that cannot run left out.
        seconds: work left on each; none on those that are done.
        running: chains that are being worked on, however many they are.
    """
    # In milliseconds, of which the schedule wants whole ones; none is 0, which would be done.
    work = {name: 1 + round(1000 * left) if left else 0 for name, left in seconds.items()}
    schedule = Schedule(list(chains), work)
    now, done = 0.0, dict.fromkeys(schedule.done, 0.0)
    ends: list[tuple[float, str]] = []

    def start(name: str) -> None:
        schedule.start(name)
        heapq.heappush(ends, (now + seconds[name], name))

    for name in running:
        if name not in schedule.done:
            start(name)
    while True:
        while len(ends) < workers and (ready := schedule.ready()) is not None:
            start(ready)
        if not ends:
            return done
        now, name = heapq.heappop(ends)
        schedule.finish(name)
        done[name] = now


def _flops(node: Node) -> float:
    return train_flops_per_token(node.model, node.vocab_size, node.stage.sequence_length)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
