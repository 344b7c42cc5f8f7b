"""Which chain to start next: the one with the longest way still to go behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from davinci.planning.plan import Chain


class Schedule:
    """Chains of a plan, started parents first and by critical path, so that the last worker to finish finishes early.

    Starting, finishing and asking for the next chain cost O(log chains).

    Args:
        chains: every chain of the plan, parents before children.
        work: remaining work of each chain, in tokens; a chain with none is done.
    """

    def __init__(self, chains: Sequence[Chain], work: Mapping[str, int]) -> None:
        self._after = {chain.name: chain.after for chain in chains}
        self._children: dict[str, list[str]] = {chain.name: [] for chain in chains}
        for chain in chains:
            if chain.after is not None:
                self._children[chain.after].append(chain.name)
        self.done = {chain.name for chain in chains if work[chain.name] == 0}
        self.running: set[str] = set()
        self.failed: set[str] = set()
        # Chains that cannot run because one before them failed.
        self.blocked: set[str] = set()
        longest: dict[str, int] = {}
        total: dict[str, int] = {}
        for chain in reversed(chains):
            children = self._children[chain.name]
            longest[chain.name] = work[chain.name] + max((longest[name] for name in children), default=0)
            total[chain.name] = work[chain.name] + sum(total[name] for name in children)
        self._priority = {
            chain.name: (-longest[chain.name], -total[chain.name], position) for position, chain in enumerate(chains)
        }
        self._open: list[tuple[tuple[int, int, int], str]] = []
        for chain in chains:
            if chain.name not in self.done and (chain.after is None or chain.after in self.done):
                self._offer(chain.name)

    @property
    def waiting(self) -> list[str]:
        """Chains neither done, running, failed nor blocked, the most urgent first; parents before children."""
        out = self.done | self.running | self.failed | self.blocked
        return sorted((name for name in self._after if name not in out), key=self._priority.__getitem__)

    def ready(self) -> str | None:
        """The most urgent chain whose predecessor is done, or None."""
        while self._open and self._is_taken(self._open[0][1]):
            heappop(self._open)
        return self._open[0][1] if self._open else None

    def start(self, name: str) -> None:
        self.running.add(name)

    def finish(self, name: str) -> None:
        self.running.discard(name)
        self.done.add(name)
        for child in self._children[name]:
            if child not in self.done:
                self._offer(child)

    def fail(self, name: str) -> list[str]:
        """Give `name` up; returns the chains that this blocks."""
        self.running.discard(name)
        self.failed.add(name)
        blocked = []
        behind = list(self._children[name])
        while behind:
            child = behind.pop()
            if child not in self.done:  # what comes after a chain done before does not need this one
                blocked.append(child)
                behind.extend(self._children[child])
        self.blocked.update(blocked)
        return blocked

    def put_back(self, name: str) -> None:
        """A started chain stopped before its end; it may be started again."""
        self.running.discard(name)
        self._offer(name)

    def _is_taken(self, name: str) -> bool:
        return name in self.running or name in self.done or name in self.failed

    def _offer(self, name: str) -> None:
        heappush(self._open, (self._priority[name], name))
