"""The state of a launch in numbers: runs, tokens, speed, time to go. No terminal here."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from davinci.config import Node
from davinci.launching.reconcile import Remaining
from davinci.launching.tasks import node_of, tasks
from davinci.planning.identity import human_tokens
from davinci.planning.plan import Plan, PlannedRun

SPEED_WINDOW_SECONDS = 15.0
# Runs named in a message before the rest are counted.
NAMES_SHOWN = 4


@dataclass
class Seat:
    """What one worker is doing, since when, and the ``(seconds, tokens)`` it reached while training its node."""

    node: str = ""
    phase: str = "idle"
    since: float = 0.0
    samples: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def speed(self) -> float:
        """Tokens a second of the training going on, over the last `SPEED_WINDOW_SECONDS`; else 0."""
        if self.phase != "training" or len(self.samples) < 2:
            return 0.0
        (then, before), (now, after) = self.samples[0], self.samples[-1]
        return (after - before) / (now - then) if now > then else 0.0


class Board:
    """The state of a launch, as the display shows it.

    Args:
        plan: what is launched.
        left: work left on each node when the launch began.
        workers: worker processes at most.
        clock: seconds, monotonic.
    """

    def __init__(
        self, plan: Plan, left: Mapping[str, Remaining], workers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.plan = plan
        self.seats: dict[int, Seat] = {}
        self.finished = {node for node, one in left.items() if one.finished}
        self._workers = workers
        self._chains = {task.name: task for task in tasks(plan)}
        self._parents_first = [node for chain in plan.chains() for node in chain.nodes]
        # By place in plan.runs: the runs through each node, how many nodes each run lacks, how runs that end early end.
        self._runs_of: dict[str, list[int]] = {}
        for place, run in enumerate(plan.runs):
            for node in run.nodes:
                self._runs_of.setdefault(node, []).append(place)
        self._open = [sum(node not in self.finished for node in run.nodes) for run in plan.runs]
        self._ended: dict[int, Literal["failed", "cancelled"]] = {}
        self._clock = clock
        self._reached = {node: one.start for node, one in left.items()}
        self._evaluations = {node: len(one.evaluations) for node, one in left.items()}
        # Worker-seconds spent and what they bought: tokens trained, checkpoints evaluated.
        self._training = [0.0, 0]
        self._evaluating = [0.0, 0]

    def sit(self, worker: int, node: str, phase: str) -> None:
        """`worker` begins `phase` on `node` (of any node, where it names none); ends what it did before."""
        now = self._clock()
        seat = self.seats.get(worker)
        if seat is not None and seat.phase == "evaluating":
            self._evaluating[0] += now - seat.since
            self._evaluating[1] += 1
            self._evaluations[seat.node] = max(0, self._evaluations[seat.node] - 1)
        if phase == "evaluating":  # Which comes after training.
            self._reached[node] = self.plan.nodes[node].end
        self.seats[worker] = Seat(node, phase, now)

    def leave(self, worker: int) -> None:
        """`worker` is gone."""
        self.seats.pop(worker, None)

    def trained(self, worker: int, node: str, tokens: int) -> None:
        """`worker` has brought `node` to `tokens` since initialisation."""
        seat, now = self.seats[worker], self._clock()
        if seat.samples and tokens > seat.samples[-1][1]:
            self._training[0] += now - seat.samples[-1][0]
            self._training[1] += tokens - seat.samples[-1][1]
        seat.samples.append((now, tokens))
        while len(seat.samples) > 2 and seat.samples[1][0] < now - SPEED_WINDOW_SECONDS:
            seat.samples.popleft()
        self._reached[node] = tokens

    def finish(self, node: str) -> list[str]:
        """`node` is trained and evaluated; returns the ids of the runs that this finishes."""
        self._reached[node] = self.plan.nodes[node].end
        self._evaluations[node] = 0
        if node in self.finished:
            return []
        self.finished.add(node)
        done = []
        for place in self._runs_of[node]:
            self._open[place] -= 1
            if not self._open[place]:
                done.append(self.plan.runs[place].id)
        return done

    def fail(self, chain: str, how: Literal["failed", "cancelled"] = "failed") -> None:
        """`chain` failed, or cannot run since one before it did: so do the runs through what it has not finished."""
        for node in self._chains[chain].nodes:
            if node not in self.finished:
                self._ended.update(dict.fromkeys(self._runs_of[node], how))

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens trained and tokens of the whole plan, shared stretches counted once."""
        nodes = self.plan.nodes.values()
        done = sum(min(max(self._reached[node.id], node.begin), node.end) - node.begin for node in nodes)
        return done, sum(node.end - node.begin for node in nodes)

    @property
    def speed(self) -> float:
        """Tokens a second of all training going on."""
        return sum(seat.speed for seat in self.seats.values())

    @property
    def eta(self) -> float | None:
        """Seconds to go: the work left shared by the workers, or its longest chain; None until something was trained.

        An evaluation is priced at the mean of those seen so far, the first one at the time it has taken yet.
        """
        if not self._training[1]:
            return None
        a_token = self._training[0] / self._training[1]
        an_evaluation = self._evaluation_price()
        total, longest = 0.0, 0.0
        chain: dict[str, float] = {}
        for name in self._parents_first:
            node = self.plan.nodes[name]
            own = a_token * max(0, node.end - self._reached[node.id]) + an_evaluation * self._evaluations[node.id]
            chain[node.id] = own + (chain[node.parent] if node.parent else 0.0)
            total, longest = total + own, max(longest, chain[node.id])
        return max(total / self._workers, longest)

    def _evaluation_price(self) -> float:
        if self._evaluating[1]:
            return self._evaluating[0] / self._evaluating[1]
        now = self._clock()
        return max((now - seat.since for seat in self.seats.values() if seat.phase == "evaluating"), default=0.0)

    def fraction(self, node: str) -> float:
        """How much of `node` is trained."""
        one = self.plan.nodes[node]
        return min(max(self._reached[node] - one.begin, 0) / (one.end - one.begin), 1.0)

    def finished_runs(self) -> list[str]:
        """Ids of runs whose every node is finished."""
        return [run.id for run, open_nodes in zip(self.plan.runs, self._open, strict=True) if not open_nodes]

    def runs(self) -> dict[str, int]:
        """Number of runs done, running, waiting, failed and, if any were, cancelled."""
        done = self._open.count(0)
        seated = {place for seat in self.seats.values() for place in self._runs_of.get(seat.node, ())}
        running = sum(1 for place in seated - self._ended.keys() if self._open[place])
        ended = Counter(self._ended.values())
        return {
            "done": done,
            "running": running,
            "waiting": len(self._open) - done - running - ended.total(),
            "failed": ended["failed"],
        } | ({"cancelled": ended["cancelled"]} if ended["cancelled"] else {})

    def name(self, node: str) -> str:
        """A node, or the task named by it, in words."""
        what, node = ("evaluation of " if node not in self.plan.nodes else ""), node_of(node)
        return what + stretch_name(self.plan.nodes[node], [self.plan.runs[place] for place in self._runs_of[node]])

    def reached(self, chain: str) -> str:
        """The first node of `chain` that is not finished, in words."""
        return self.name(next((node for node in self._chains[chain].nodes if node not in self.finished), chain))

    def unfinished(self, chain: str) -> str:
        """The runs that lack a node of `chain`, by name."""
        nodes = self._chains[chain].nodes
        lacking = next((node for node in nodes if node not in self.finished), node_of(chain))
        names = [self.plan.runs[place].name for place in self._runs_of[lacking]]
        more = len(names) - NAMES_SHOWN
        return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")

    def line(self) -> str:
        """The board in one line."""
        counts = self.runs()
        runs = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done")
        done, total = self.tokens
        text = f"runs: {runs} · {human_tokens(done)} of {human_tokens(total)} tokens ({100 * done / total:.0f}%)"
        speed, eta = self.speed, self.eta
        if speed > 0:
            text += f" · {human_tokens(round(speed))} tokens/s"
        if eta:
            text += f" · ETA {duration(eta)}"
        return text


def stretch_name(node: Node, owners: Sequence[PlannedRun]) -> str:
    """A node in words: its stage, and whose it is of the runs through it."""
    whose = owners[0].name
    if len(owners) > 1:
        seeds = {owner.seed for owner in owners}
        whose = f"{len(owners)} runs" + (f" of seed {owners[0].seed}" if len(seeds) == 1 else "")
    return f"{node.stage_name} of {whose}"


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
