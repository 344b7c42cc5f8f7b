"""Benchmarks from held-out Python: the next line, and the right order of tokens within a line."""

from __future__ import annotations

import re
from itertools import pairwise
from random import Random

from davinci.evaluation.documents import Document, Item, draw, surround, with_label

CHOICES = 4
CONTEXT_LINES = 6
CONTEXT_BYTES = 200
LENGTH_TOLERANCE = 4

_LEXEME = re.compile(r"\w+|[^\w\s]")

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


def next_line(documents: list[Document], random: Random, count: int) -> list[Item]:
    """Which line comes next? Three lines of other files with the same indentation and about the same byte length."""
    places = [(document, line_places(document)) for document in documents]
    by_indent: dict[int, list[tuple[str, str]]] = {}
    for document, found in places:
        for _, line in found:
            by_indent.setdefault(_indent(line), []).append((document.id, line))

    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        others = [other for name, other in by_indent[_indent(line)] if name != document.id and other != line]
        shorter = sorted({one for one in others if 0 <= len(line) - len(one) <= LENGTH_TOLERANCE})
        longer = sorted({one for one in others if 0 < len(one) - len(line) <= LENGTH_TOLERANCE})
        wrong = surround(line, shorter, longer, CHOICES - 1, random)
        if wrong is None:
            return None
        return with_label(document, before, "\n" + line, ["\n" + one for one in wrong], random)

    return draw(places, make, random, count)


def token_order(documents: list[Document], random: Random, count: int) -> list[Item]:
    """Which line is unaltered? In each of the others two neighbouring tokens of the line are exchanged."""

    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        wrong = _swaps(line)
        if len(wrong) < CHOICES - 1:
            return None
        chosen = random.sample(wrong, CHOICES - 1)
        return with_label(document, before, "\n" + line, ["\n" + one for one in chosen], random)

    return draw([(document, line_places(document)) for document in documents], make, random, count)


def _swaps(line: str) -> list[str]:
    """The line with two neighbouring tokens exchanged, in every way that leaves it made of the same tokens."""
    tokens = sorted(_LEXEME.findall(line))
    spans = [match.span() for match in _LEXEME.finditer(line)]
    swapped = {line[:a] + line[c:d] + line[b:c] + line[a:b] + line[d:] for (a, b), (c, d) in pairwise(spans)}
    return sorted(one for one in swapped - {line} if sorted(_LEXEME.findall(one)) == tokens)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
