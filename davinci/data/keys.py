"""What the documents after each step of each part are a function of: a digest that names the file they are kept in.

A document operation's output hangs on its input and its own description; a corpus operation's on every part of every
source it decides on. So a step that is added, or an input file that changes, leaves the names of everything before it
and beside it alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from davinci.data.operations import CorpusOperation
from davinci.data.pool_files import Chain
from davinci.errors import UserError

FORMAT = 1  # of the files between steps


class Keys:
    """Keys of a pool's chains, by source and position in the chain."""

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        self._chains = chains
        self._known: dict[tuple[str, int], list[str]] = {}
        self._asked: set[tuple[str, int]] = set()

    def of_parts(self, source: str, position: int) -> list[str]:
        """The key of each part's documents after the operation at `position`."""
        place = source, position
        if place not in self._known:
            if place in self._asked:
                raise UserError(
                    f"sources.{source}.chain[{position}]: two operations over the whole pool each wait for the other; "
                    "let every chain have them in the same order"
                )
            self._asked.add(place)
            chain = self._chains[source]
            step = chain.operations[position]
            if position == 0:
                before = [digest([FORMAT, part]) for part in chain.parts]
            else:
                before = self.of_parts(source, position - 1)
            known = self.of_corpus(source, position) if isinstance(step, CorpusOperation) else step.described()
            own = digest(known)
            self._known[place] = [digest([one, own]) for one in before]
        return self._known[place]

    def of_corpus(self, source: str, position: int) -> str:
        """The key of what a corpus operation decides."""
        chains = self._chains
        members = [
            [name, chains[name].domain, chains[name].heldout_fraction, self.of_parts(name, before)]
            for name, before in self.corpus(source, position).items()
        ]
        return digest([chains[source].operations[position].described(), members])

    def corpus(self, source: str, position: int) -> dict[str, int]:
        """The sources that a corpus operation decides on, each with the position it takes its documents from."""
        step = self._chains[source].operations[position]
        if not isinstance(step, CorpusOperation) or not step.pool_wide:
            return {source: position - 1}
        described = step.described()
        turn = self._places(source, described).index(position)
        found = {}
        for name in sorted(self._chains):
            places = self._places(name, described)
            if len(places) > turn:
                found[name] = places[turn] - 1
        return found

    def _places(self, source: str, described: dict[str, Any]) -> list[int]:
        steps = enumerate(self._chains[source].operations)
        return [place for place, step in steps if step.described() == described]


def digest(value: Any) -> str:
    """Of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
