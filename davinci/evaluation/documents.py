"""Held-out documents, and what every benchmark maker does with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

Item = dict[str, Any]
Place = TypeVar("Place")
Value = TypeVar("Value")

PASSES = 50


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


def with_label(document: Document, context: str, right: str, wrong: list[str], random: Random) -> Item | None:
    """A multiple-choice item with the right answer at a random place; None where two choices are equal."""
    choices = [right, *wrong]
    if not context or len(set(choices)) < len(choices):
        return None
    random.shuffle(choices)
    return {
        "source": document.source,
        "document": document.id,
        "context": context,
        "choices": choices,
        "label": choices.index(right),
    }


def draw(
    places: list[tuple[Document, list[Place]]],
    make: Callable[[Document, Place], Item | None],
    random: Random,
    count: int,
) -> list[Item]:
    """Up to `count` items of different contexts, made at random places of random documents.

    Each pass over the documents takes one place a document, so that a long document weighs no more than needed.
    """
    order = [(document, found) for document, found in places if found]
    items: list[Item] = []
    seen: set[str] = set()
    for _ in range(PASSES):
        random.shuffle(order)
        for document, found in order:
            item = make(document, random.choice(found))
            if item is None or item["context"] in seen:
                continue
            seen.add(item["context"])
            items.append(item)
            if len(items) == count:
                return items
    return items


def surround(value: Value, below: list[Value], above: list[Value], count: int, random: Random) -> list[Value] | None:
    """`count` others around `value`, a uniformly random number of them from `above`; None where there are too few.

    Whatever `below` and `above` are sorted by, the right answer then stands at each rank among the choices equally
    often, so that the ranking gives nothing away.
    """
    over = random.randrange(count + 1)
    if len(above) < over or len(below) < count - over:
        return None
    return random.sample(above, over) + random.sample(below, count - over)
