"""The state of a launch in numbers: runs, tokens, speed, time to go. No terminal here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from davinci.launching.reconcile import Remaining
from davinci.planning.identity import human_tokens
from davinci.planning.plan import Plan

SPEED_WINDOW_SECONDS = 30.0


@dataclass
class Seat:
    """What one worker is doing."""

    chain: str = ""
    node: str = ""
    phase: str = "idle"


@dataclass
class Board:
    """The state of a launch, as the display shows it.

    Args:
        plan: what is launched.
        left: work left on each node when the launch began.
        clock: seconds, monotonic.
    """

    plan: Plan
    left: Mapping[str, Remaining]
    clock: Callable[[], float] = time.monotonic
    seats: dict[int, Seat] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.finished = {node for node, left in self.left.items() if left.finished}
        self._trained = {
            node: self._length(node) if not left.train else left.start - self.plan.nodes[node].begin
            for node, left in self.left.items()
        }
        self._fresh = 0
        self._samples: deque[tuple[float, int]] = deque([(self.clock(), 0)])
        # How each run is named where a node is shown: by the first run that contains it.
        self._label: dict[str, str] = {}
        for run in self.plan.runs:
            for node in run.nodes:
                self._label.setdefault(node, run.config.name)
        self._sharing = {node: sum(node in run.nodes for run in self.plan.runs) for node in self.plan.nodes}

    def _length(self, node: str) -> int:
        return self.plan.nodes[node].end - self.plan.nodes[node].begin

    def trained(self, node: str, tokens: int) -> None:
        """`node` has reached `tokens` since initialisation."""
        reached = min(max(tokens - self.plan.nodes[node].begin, 0), self._length(node))
        # Training may resume behind or ahead of where the board thought: only an advance is work done.
        self._fresh += max(reached - self._trained[node], 0)
        self._trained[node] = reached
        now = self.clock()
        self._samples.append((now, self._fresh))
        while len(self._samples) > 2 and self._samples[1][0] < now - SPEED_WINDOW_SECONDS:
            self._samples.popleft()

    def finish(self, node: str) -> None:
        """`node` is trained and evaluated."""
        self.trained(node, self.plan.nodes[node].end)
        self.finished.add(node)

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens trained and tokens of the whole plan, shared stretches counted once."""
        return sum(self._trained.values()), sum(map(self._length, self.plan.nodes))

    @property
    def speed(self) -> float:
        """Tokens a second over the last half minute, evaluation included."""
        (then, before), (_, now) = self._samples[0], self._samples[-1]
        elapsed = self.clock() - then
        return (now - before) / elapsed if elapsed > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds to go at the present speed; None while it is not known."""
        done, total = self.tokens
        return (total - done) / self.speed if self.speed > 0 else None

    def finished_runs(self) -> list[str]:
        """Ids of runs whose every node is finished."""
        return [run.id for run in self.plan.runs if self.finished.issuperset(run.nodes)]

    def runs(self) -> dict[str, int]:
        """Number of runs done, running, waiting and failed."""
        active = {seat.node for seat in self.seats.values() if seat.node}
        counts = dict.fromkeys(("done", "running", "waiting", "failed"), 0)
        for run in self.plan.runs:
            if self.finished.issuperset(run.nodes):
                counts["done"] += 1
            elif (self.failed | self.blocked).intersection(run.nodes):
                counts["failed"] += 1
            elif active.intersection(run.nodes):
                counts["running"] += 1
            else:
                counts["waiting"] += 1
        return counts

    def name(self, node: str) -> str:
        """A node in words: its stage and whose it is."""
        shared = self._sharing[node]
        whose = self._label[node] + (f" and {shared - 1} more" if shared > 1 else "")
        return f"{self.plan.nodes[node].stage_name} of {whose}"

    def fraction(self, node: str) -> float:
        return self._trained[node] / self._length(node)

    def line(self) -> str:
        """The board in one line."""
        counts = self.runs()
        runs = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done")
        done, total = self.tokens
        text = f"runs: {runs} · {human_tokens(done)} of {human_tokens(total)} tokens ({100 * done / total:.0f}%)"
        if self.speed > 0:
            text += f" · {human_tokens(round(self.speed))} tokens/s"
        if self.eta is not None and done < total:
            text += f" · ETA {duration(self.eta)}"
        return text


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
