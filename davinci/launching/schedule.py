"""Which chain to start next: the one with the longest way still to go behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from davinci.planning.plan import Chain


class Schedule:
    """Chains of a plan, started parents first and by critical path, so that the last worker to finish finishes early.

    Args:
        chains: every chain of the plan, parents before children.
        work: remaining work of each chain, in tokens; a chain with none is done.
    """

    def __init__(self, chains: Sequence[Chain], work: Mapping[str, int]) -> None:
        self._chains = {chain.name: chain for chain in chains}
        self._order = list(self._chains)
        self.done = {chain.name for chain in chains if work[chain.name] == 0}
        self.running: set[str] = set()
        self.failed: set[str] = set()
        longest: dict[str, int] = {}
        total: dict[str, int] = {}
        for chain in reversed(chains):
            children = [child.name for child in chains if child.after == chain.name]
            longest[chain.name] = work[chain.name] + max((longest[name] for name in children), default=0)
            total[chain.name] = work[chain.name] + sum(total[name] for name in children)
        self._priority = {name: (-longest[name], -total[name], position) for position, name in enumerate(self._order)}

    @property
    def blocked(self) -> set[str]:
        """Chains that cannot run because one before them failed."""
        stuck: set[str] = set()
        for name in self._order:
            after = self._chains[name].after
            if after in self.failed or after in stuck:
                stuck.add(name)
        return stuck - self.done

    @property
    def waiting(self) -> list[str]:
        """Chains neither done, running, failed nor blocked, the most urgent first."""
        out = self.done | self.running | self.failed | self.blocked
        return sorted((name for name in self._order if name not in out), key=self._priority.__getitem__)

    def ready(self) -> str | None:
        """The most urgent chain whose predecessor is done, or None."""
        for name in self.waiting:
            after = self._chains[name].after
            if after is None or after in self.done:
                return name
        return None

    def start(self, name: str) -> None:
        self.running.add(name)

    def finish(self, name: str) -> None:
        self.running.discard(name)
        self.done.add(name)

    def fail(self, name: str) -> None:
        self.running.discard(name)
        self.failed.add(name)

    def put_back(self, name: str) -> None:
        """A started chain stopped before its end; it may be started again."""
        self.running.discard(name)
