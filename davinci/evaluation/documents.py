"""Held-out documents, and what every benchmark maker does with them."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Item = dict[str, Any]
Place = TypeVar("Place")

CHOICES = 4
NEIGHBOURS = 6

# Log-probabilities of texts, float64[n, 2] (`Frequencies.of`).
Usual = Callable[[Sequence[str]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Document:
    """One held-out document; `fields` holds what else its line says (question, answer, grade)."""

    source: str
    id: str
    text: str
    fields: dict[str, Any]


def read_documents(source: str, path: Path) -> list[Document]:
    """The documents of one heldout.jsonl, in file order."""
    documents = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            fields = {key: value for key, value in row.items() if key not in ("id", "text")}
            documents.append(Document(source, str(row["id"]), row["text"], fields))
    return documents


def clip_left(text: str, limit: int) -> str:
    """The last whole words of `text` within `limit` bytes; line breaks count as part of the words they end."""
    data = text.encode("utf-8")
    if len(data) <= limit:
        return text
    kept = data[-limit:].decode("utf-8", errors="ignore")
    _, _, rest = kept.partition(" ")
    return rest or kept


class Alike:
    """Texts in the order of how usual they are in the training text, to find those about as usual as another one."""

    def __init__(self, texts: Iterable[str], usual: Usual) -> None:
        some = sorted(set(texts))
        values = usual(some)[:, 1].tolist() if some else []
        self._ranked = sorted(zip(values, some, strict=True))

    def near(self, value: float, count: int) -> list[str]:
        """Up to `count` next less and `count` next more usual ones."""
        place = bisect_left(self._ranked, (value, ""))
        return [text for _, text in self._ranked[max(0, place - count) : place + count]]


@dataclass
class Material:
    """What a maker of items is given, and how many it should make.

    `usual` says of texts how usual each is in the training text, by single tokens and by pairs (`Frequencies.of`);
    `ranks` counts, over the items made, how many wrong choices were more usual than the right one.
    """

    documents: list[Document]
    random: Random
    usual: Usual
    count: int
    ranks: Counter[int] = field(default_factory=Counter)

    def pick(self, right: str, wrong: Sequence[str]) -> tuple[list[str], int] | None:
        """Three of `wrong`, and how many of them are more usual than `right`; None where that cannot be had.

        Of the numbers from 0 to 3 it is the one that fewest items have, and none that has its share already: the right
        answer stands at each rank about equally often, so that frequency gives nothing away. The three are those that
        single tokens and pairs do not order differently, among the `NEIGHBOURS` nearest to it on either side.
        """
        if len(wrong) < CHOICES - 1:
            return None
        found = self.usual([right, *wrong])
        single, pairs = (found[1:] - found[0]).T.tolist()
        ranked = sorted((two, text) for one, two, text in zip(single, pairs, wrong, strict=True) if one * two >= 0)
        below = [text for value, text in ranked if value < 0][-NEIGHBOURS:]
        above = [text for value, text in ranked if value > 0][:NEIGHBOURS]
        possible = [
            over
            for over in range(CHOICES)
            if over <= len(above) and CHOICES - 1 - over <= len(below) and CHOICES * self.ranks[over] < self.count
        ]
        if not possible:
            return None
        over = min(possible, key=lambda over: (self.ranks[over], over))
        return self.random.sample(above, over) + self.random.sample(below, CHOICES - 1 - over), over

    def how_usual(self, text: str) -> float:
        return float(self.usual([text])[0, 1])

    def item(
        self, document: Document, context: str, right: str, wrong: Sequence[str], over: int, grade: int | None = None
    ) -> Item | None:
        """A multiple-choice item with the right answer at a random place; None where two choices are equal.

        `over` of the wrong ones are more usual than the right one; without a `grade` that is what makes it hard.
        """
        choices = [right, *wrong]
        if not context.strip() or len(set(choices)) < len(choices):
            return None
        self.random.shuffle(choices)
        self.ranks[over] += 1
        return {
            "source": document.source,
            "document": document.id,
            "context": context,
            "choices": choices,
            "label": choices.index(right),
            "grade": 1 + over if grade is None else grade,
            "more_usual": over,
        }

    def draw(
        self, places: Callable[[Document], list[Place]], make: Callable[[Document, Place], Item | None]
    ) -> list[Item]:
        """Up to `self.count` items of different contexts, made at random places of random documents.

        Each pass over the documents takes one place a document, so that a long document weighs no more than needed.
        """
        order = [(document, found) for document in self.documents if (found := places(document))]
        for _, found in order:
            self.random.shuffle(found)
        items: list[Item] = []
        seen: set[str] = set()
        while order:
            self.random.shuffle(order)
            for document, found in order:
                item = make(document, found.pop())
                if item is None or item["context"] in seen:
                    continue
                seen.add(item["context"])
                items.append(item)
                if len(items) == self.count:
                    return items
            order = [(document, found) for document, found in order if found]
        return items


def evenly(items: list[Item], count: int, grades: Sequence[int]) -> list[Item]:
    """Up to `count` items, their grades in the order of `grades` over and over, one that has run out left out.

    Of a grade, those with none to three more usual wrong choices take turns. Any number of the first items then has the
    same shares, as far as there are enough of each.
    """
    waiting: dict[int, list[Item]] = {}
    for grade in set(grades):
        columns = [
            [item for item in items if (item["grade"], item["more_usual"]) == (grade, over)] for over in range(CHOICES)
        ]
        waiting[grade] = [item for row in zip_longest(*columns) for item in row if item is not None]
    taken: list[Item] = []
    while len(taken) < count and any(waiting.values()):
        for grade in grades:
            if waiting[grade]:
                taken.append(waiting[grade].pop(0))
    return taken[:count]
