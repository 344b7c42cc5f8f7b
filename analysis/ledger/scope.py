"""What a card is of: a whole sweep, or one run of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from analysis.findings import Findings
from davinci.config import Node
from davinci.planning.plan import Plan, PlannedRun
from davinci.planning.sweep import Arm
from davinci.store import Store


@dataclass(frozen=True)
class Scope:
    """Findings of a sweep, and the runs of it that are spoken of."""

    found: Findings
    runs: tuple[PlannedRun, ...]

    @property
    def plan(self) -> Plan:
        return self.found.sweep.plan

    @property
    def store(self) -> Store:
        return self.found.sweep.store

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the sweep."""
        return len(self.runs) == len(self.plan.runs)

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """The stretches that the runs pass through, parents first."""
        wanted = {node for run in self.runs for node in run.nodes}
        return {name: node for name, node in self.plan.nodes.items() if name in wanted}

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        labels = {run.arm for run in self.runs}
        return tuple(arm for arm in self.plan.arms if arm.label in labels)

    @cached_property
    def owners(self) -> dict[str, list[PlannedRun]]:
        """All runs of the sweep through each of `nodes`."""
        found: dict[str, list[PlannedRun]] = defaultdict(list)
        for run in self.plan.runs:
            for node in run.nodes:
                if node in self.nodes:
                    found[node].append(run)
        return found

    @cached_property
    def incomplete(self) -> tuple[str, ...]:
        """Ids of the runs that lack a demanded score."""
        scores = self.found.sweep.scores
        lacking = set(scores.loc[scores["missing"] != "", "run"])
        return tuple(run.id for run in self.runs if run.id in lacking)
