"""Where the runs of a plan part, and with it where their training is cut into nodes.

Every run is a list of events on the token axis (`identity.Course`). A trie over those lists finds what runs share
without comparing them in pairs: a twig of the trie is a stretch without an event, on which all runs through it agree.
Runs are cut where a stage of any of them ends and where they part, each floored to a step boundary; every run through
a shared stretch gets every cut on it. A cut's state id is computed once for all the runs that share it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from davinci.planning.identity import Course, History, StageSpan, encode, state_id


class State(NamedTuple):
    """A state between two nodes: `tokens` since initialisation."""

    tokens: int
    id: str


# Where a run meets its next events, and what they are; None where it ends.
_Next = tuple[int, tuple[str, int | None] | None]


class _Twig:
    """The stretch after the events at `begin`, as far as no other event comes.

    `ways` are the ways on from here, each with the index of a run that takes it. `cuts` are in tokens, ascending.
    """

    __slots__ = ("begin", "cuts", "following", "states", "ways")

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.cuts: list[int] = []
        self.states: dict[int, State] = {}
        self.following: dict[_Next, _Twig] = {}
        self.ways: dict[_Next, int] = {}


class Tree:
    """What `histories` share. A run is named by its index."""

    def __init__(self, histories: Sequence[History]) -> None:
        self._histories = histories
        self._roots: dict[tuple[str, int, str, int | None], _Twig] = {}
        self._lists: dict[int, tuple[str, dict[int, str]]] = {}
        # Per run, its twigs from the root on, each with the tokens at which the run leaves it.
        self._paths = [self._grow(index, history) for index, history in enumerate(histories)]
        for index, history in enumerate(histories):
            for span in history.spans:
                self.cut(index, span.end)
        for twig in self._twigs():
            self._cut_where_runs_part(twig)

    def cut(self, index: int, tokens: int) -> None:
        """Cut the run, and all that share it up to there, at the step boundary at or before `tokens`."""
        tokens = floored(self._histories[index].spans, tokens)
        for twig, leaves in self._paths[index]:
            if twig.begin < tokens <= leaves:
                place = bisect_left(twig.cuts, tokens)
                if place == len(twig.cuts) or twig.cuts[place] != tokens:
                    twig.cuts.insert(place, tokens)

    def states(self, index: int) -> list[State]:
        """The states at the ends of the run's nodes, in order."""
        found = []
        for twig, leaves in self._paths[index]:
            for tokens in twig.cuts[: bisect_right(twig.cuts, leaves)]:
                if tokens not in twig.states:
                    twig.states[tokens] = State(tokens, state_id(self._histories[index], tokens))
                found.append(twig.states[tokens])
        return found

    def _grow(self, index: int, history: History) -> list[tuple[_Twig, int]]:
        throughout, texts = self._list(history.course)
        seeds = dict(history.data_seeds)
        root = (throughout, history.initialisation_seed, texts[0], seeds[0])
        twig = self._roots.setdefault(root, _Twig(0))
        path = []
        begins = sorted({*texts, *seeds})[1:]
        for begin in begins:
            way: _Next = (begin, (texts.get(begin, ""), seeds.get(begin)))
            twig.ways.setdefault(way, index)
            path.append((twig, begin))
            if way not in twig.following:
                twig.following[way] = _Twig(begin)
            twig = twig.following[way]
        twig.ways.setdefault((history.end, None), index)
        path.append((twig, history.end))
        return path

    def _list(self, course: Course) -> tuple[str, dict[int, str]]:
        """What holds throughout, and the events by where they begin, as text."""
        if id(course) not in self._lists:
            grouped = groupby(course.events, key=lambda event: event.begin)
            texts = {begin: ";".join(f"{event.channel}{event.text}" for event in events) for begin, events in grouped}
            self._lists[id(course)] = encode(course.throughout), texts
        return self._lists[id(course)]

    def _twigs(self) -> Iterator[_Twig]:
        waiting = list(self._roots.values())
        while waiting:
            twig = waiting.pop()
            waiting.extend(twig.following.values())
            yield twig

    def _cut_where_runs_part(self, twig: _Twig) -> None:
        """A way that leaves at p parts from every other that goes on to p or further."""
        if len(twig.ways) == 1:
            return
        places = sorted(begin for begin, _ in twig.ways)
        furthest = places[-2]  # Nobody is left to part from the last way of all, unless another goes as far.
        for (begin, _), index in twig.ways.items():
            if begin <= furthest:
                self.cut(index, begin)


def floored(spans: Sequence[StageSpan], tokens: int) -> int:
    """The last step boundary of a run of these spans at or before `tokens`."""
    span = next(span for span in spans if tokens <= span.end)
    if tokens in (span.begin, span.end):
        return tokens
    grid = span.stage.grid
    return span.stage_begin + grid.tokens_at(grid.step_at(tokens - span.stage_begin))
