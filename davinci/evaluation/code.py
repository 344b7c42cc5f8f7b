"""Benchmarks from held-out Python: the next line, and the right order of tokens within a line."""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random

from davinci.evaluation.documents import Document, Item, draw, with_label

CHOICES = 4
CONTEXT_LINES = 6
CONTEXT_BYTES = 200
LENGTH_TOLERANCE = 3

_LEXEME = re.compile(r"\w+|[^\w\s]")

Place = tuple[str, str]


def line_places(document: Document) -> list[Place]:
    """``(lines before, line)`` of every line of code of 16 to 60 bytes that follows code in the same block.

    Comments, string-only lines and imports are left out: what they say is not decided by the code before them.
    """
    lines = document.text.split("\n")
    places = []
    for index in range(2, len(lines)):
        line, previous = lines[index], lines[index - 1]
        code = line.strip()
        if not 16 <= len(code.encode()) <= 60 or not previous.strip():
            continue
        if code.startswith(("#", '"', "'", "import ", "from ")) or not code.isascii():
            continue
        before = lines[max(0, index - CONTEXT_LINES) : index]
        while len(before) > 1 and len("\n".join(before).encode()) > CONTEXT_BYTES:
            before = before[1:]
        places.append(("\n".join(before), line))
    return places


def next_line(documents: list[Document], random: Random, count: int) -> list[Item]:
    """Which line comes next? Three lines of other files with the same indentation and about the same byte length."""
    places = [(document, line_places(document)) for document in documents]
    by_indent: dict[int, list[tuple[str, str]]] = {}
    for document, found in places:
        for _, line in found:
            by_indent.setdefault(_indent(line), []).append((document.id, line))

    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        alike = by_indent[_indent(line)]
        wrong: list[str] = []
        for other, candidate in random.sample(alike, min(len(alike), 200)):
            near = abs(len(candidate.encode()) - len(line.encode())) <= LENGTH_TOLERANCE
            if near and other != document.id and candidate not in (line, *wrong):
                wrong.append(candidate)
            if len(wrong) == CHOICES - 1:
                return with_label(document, before, "\n" + line, ["\n" + one for one in wrong], random)
        return None

    return draw(places, make, random, count)


def token_order(documents: list[Document], random: Random, count: int) -> list[Item]:
    """Which line is unaltered? In each of the others two neighbouring tokens of the line are exchanged."""

    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        tokens = [(match.start(), match.end()) for match in _LEXEME.finditer(line)]
        pairs = [(first, second) for first, second in pairwise(tokens) if line[slice(*first)] != line[slice(*second)]]
        if len(pairs) < CHOICES - 1:
            return None
        wrong = []
        for (a, b), (c, d) in random.sample(pairs, CHOICES - 1):
            wrong.append("\n" + line[:a] + line[c:d] + line[b:c] + line[a:b] + line[d:])
        return with_label(document, before, "\n" + line, wrong, random)

    return draw([(document, line_places(document)) for document in documents], make, random, count)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
