"""Benchmarks from held-out Python: how far the next line is indented, the right order of names within a line, and which
mark comes next, also in the formulas of technical text.

The right choice is as often the most usual in the training text as any (`Material.pick`), and the others are as long.
An item of grade g has g - 1 wrong choices that are more usual than the right one; the grade of an indentation is said
there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations, pairwise

from davinci.evaluation.documents import CHOICES, Document, Item, Material

CONTEXT_LINES = 5
CONTEXT_BYTES = 80
INDENT = 4
DEEPEST = 16
NAMES = 4
_MARKS = "( ) [ ] { } : , . = + - * / < > % () [] {} )) (( ([ )] ]) }) ({ ): ]: ), ], }, ). ]. == != += -> ** <= >="
# Of one and of two characters.
MARKS = frozenset(_MARKS.split())
# Characters after a mark that are shown.
AFTER = 6

_MARK = re.compile(r"[^\w\s]{1,2}")
_NAME = re.compile(r"[^\W\d]\w*")
_START = re.compile(r"\w+\W{0,2}\w*|\W+\w*")

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
        places.append((_before(lines, index), line))
    return places


def _before(lines: list[str], index: int) -> str:
    """The last lines before `index`, at most `CONTEXT_BYTES` or one line of them."""
    before = lines[max(0, index - CONTEXT_LINES) : index]
    while len(before) > 1 and len("\n".join(before).encode()) > CONTEXT_BYTES:
        before = before[1:]
    return "\n".join(before)


def indentation(material: Material) -> list[Item]:
    """How far is the next line, whose first words are shown, indented? They stand at three other depths too.

    Of all depths those three are taken with which the right one stands, by depth and by frequency, at the ranks that
    fewest items have. Grade 1: as far as the line before; 2: further; 3: less far.
    """
    depths: Counter[int] = Counter()

    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        right, last = _indent(line), _indent(before.split("\n")[-1])
        start = _START.match(line.strip())
        if right % INDENT or right > DEEPEST or start is None:
            return None
        choices = {depth: f"\n{' ' * depth}{start[0]}" for depth in range(0, DEEPEST + INDENT + 1, INDENT)}
        usual = dict(zip(choices, material.usual(list(choices.values()))[:, 1].tolist(), strict=True))
        found = []
        for wrong in combinations(sorted(choices.keys() - {right}), CHOICES - 1):
            over = sum(usual[depth] > usual[right] for depth in wrong)
            deeper = sum(depth > right for depth in wrong)
            if CHOICES * material.ranks[over] < material.count and CHOICES * depths[deeper] < material.count:
                found.append((material.ranks[over] + depths[deeper], material.random.random(), over, deeper, wrong))
        if not found:
            return None
        _, _, over, deeper, chosen = min(found)
        grade = 1 if right == last else 2 if right > last else 3
        item = material.item(document, before, choices[right], [choices[depth] for depth in chosen], over, grade)
        depths[deeper] += item is not None
        return item

    return material.draw(line_places, make)


def name_order(material: Material) -> list[Item]:
    """In which order do the next four names of the line stand? In each of the others two are exchanged that stand
    together or one apart."""

    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        spans = [match.span() for match in _NAME.finditer(line)]
        if len(spans) < NAMES:
            return None
        found = []
        for first in range(len(spans) - NAMES + 1):
            some = spans[first : first + NAMES]
            start, end = some[0][0], some[-1][1]
            swapped = {
                line[start:a] + line[c:d] + line[b:c] + line[a:b] + line[d:end]
                for (a, b), (c, d) in [*pairwise(some), *zip(some, some[2:], strict=False)]
            }
            blank, context = _blank_apart(f"{before}\n{line[:start]}")
            right = line[start:end]
            picked = material.pick(blank + right, sorted(blank + one for one in swapped - {right}))
            if picked is not None:
                found.append((material.ranks[picked[1]], first, context, blank + right, *picked))
        if not found:
            return None
        _, _, context, right, wrong, over = min(found)  # at a place in the line whose rank fewest items have
        return material.item(document, context, right, wrong, over)

    return material.draw(line_places, make)


def punctuation(material: Material) -> list[Item]:
    """Which mark stands here? The others are marks of as many characters; what comes after it is the same."""
    return _next_marks(material, line_places)


def formulas(material: Material) -> list[Item]:
    """`punctuation` in the examples of technical text: an interpreter's session, what it prints included."""
    return _next_marks(material, _session_places)


def _next_marks(material: Material, places: Callable[[Document], list[Place]]) -> list[Item]:
    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        marks = [one for one in _MARK.finditer(line) if one[0] in MARKS and one.start() >= _indent(line) + 3]
        if not marks:
            return None
        mark = material.random.choice(marks)
        after = line[mark.end() : mark.end() + AFTER].rstrip()
        blank, context = _blank_apart(f"{before}\n{line[: mark.start()]}")
        others = [one for one in sorted(MARKS) if one != mark[0] and len(one) == len(mark[0])]
        right = f"{blank}{mark[0]}{after}"
        picked = material.pick(right, [f"{blank}{one}{after}" for one in others])
        return picked and material.item(document, context, right, *picked)

    return material.draw(places, make)


def _session_places(document: Document) -> list[Place]:
    """``(lines before, line)`` of an interpreter's session: what is typed, and what is printed up to an empty line."""
    places = []
    lines = document.text.split("\n")
    inside = False
    for index, line in enumerate(lines):
        inside = line.lstrip().startswith(">>>") or (inside and bool(line.strip()))
        if inside and index and len(line) <= 60 and lines[index - 1].strip():
            places.append((_before(lines, index), line))
    return places


def _blank_apart(text: str) -> tuple[str, str]:
    """The blanks that `text` ends in, which belong to the choice, as lm-eval would have it; the text without them."""
    context = text.rstrip(" ")
    return text[len(context) :], context


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
