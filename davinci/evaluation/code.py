"""Benchmarks from held-out Python: how far the next line is indented, and the right order of names within a line."""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random

from davinci.evaluation.documents import Document, Item, draw, with_label

CHOICES = 4
CONTEXT_LINES = 5
CONTEXT_BYTES = 160
INDENT = 4
DEEPEST = 16

_NAME = re.compile(r"[^\W\d]\w*")

Place = tuple[str, str]


def line_places(document: Document) -> list[Place]:
    """``(lines before, line)`` of every line of code of 16 to 60 bytes that follows another line.

    Comments, strings over several lines and imports are left out: the code before does not decide what they say.
    """
    places = []
    lines = document.text.split("\n")
    in_string = False
    for index, line in enumerate(lines):
        was_in_string, quotes = in_string, line.count('"""') + line.count("'''")
        in_string ^= quotes % 2 == 1
        code = line.strip()
        if was_in_string or quotes or index < 2 or not lines[index - 1].strip():
            continue
        if not 16 <= len(code) <= 60 or not code.isascii() or code.startswith(("#", '"', "'", "import ", "from ")):
            continue
        before = lines[max(0, index - CONTEXT_LINES) : index]
        while len(before) > 1 and len("\n".join(before).encode()) > CONTEXT_BYTES:
            before = before[1:]
        places.append(("\n".join(before), line))
    return places


def indentation(documents: list[Document], random: Random, count: int) -> list[Item]:
    """How far is the next line indented? The same line at the three depths next to the right one.

    None to three of them are deeper, in turn, so that the right one stands at each rank equally often.
    """
    made = 0

    def make(document: Document, place: Place) -> Item | None:
        nonlocal made
        before, line = place
        right = _indent(line)
        if right % INDENT or right > DEEPEST:
            return None
        deeper = made % CHOICES
        first = right - (CHOICES - 1 - deeper) * INDENT
        if first < 0:
            return None
        wrong = [depth for depth in range(first, first + CHOICES * INDENT, INDENT) if depth != right]
        item = with_label(document, before, "\n" + line, [f"\n{' ' * depth}{line.strip()}" for depth in wrong], random)
        made += item is not None
        return item

    return draw([(document, line_places(document)) for document in documents], make, random, count)


def name_order(documents: list[Document], random: Random, count: int) -> list[Item]:
    """Which line is unaltered? In each of the others two neighbouring names or keywords of the line are exchanged."""

    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        wrong = _swaps(line)
        if len(wrong) < CHOICES - 1:
            return None
        chosen = random.sample(wrong, CHOICES - 1)
        return with_label(document, before, "\n" + line, ["\n" + one for one in chosen], random)

    return draw([(document, line_places(document)) for document in documents], make, random, count)


def _swaps(line: str) -> list[str]:
    """The line with two neighbouring names exchanged, in every way that changes it."""
    spans = [match.span() for match in _NAME.finditer(line)]
    swapped = {line[:a] + line[c:d] + line[b:c] + line[a:b] + line[d:] for (a, b), (c, d) in pairwise(spans)}
    return sorted(swapped - {line})


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
