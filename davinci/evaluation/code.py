"""Benchmarks from held-out Python: how far the next line is indented, the right order of names within a line, and which
name comes next.

The right answer is as often the most usual in the training text as any (`Material.pick`). An item of grade g has, in the
order of names, g - 1 wrong choices that are more usual than the right one, and g - 1 that stand in its context where a
name is asked for; the grade of an indentation is said there.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from itertools import combinations

from davinci.evaluation.documents import CHOICES, Alike, Document, Item, Material

CONTEXT_LINES = 5
CONTEXT_BYTES = 120
INDENT = 4
DEEPEST = 16
# Names of the source, about as usual, that are looked at for an item on either side.
NAMES = 8
# Wrong names are of so many lengths beside the right one's: the shorter ones of technical text are of its own.
LENGTHS = 2

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
    overs: Counter[int] = Counter()
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
            if CHOICES * overs[over] < material.count and CHOICES * depths[deeper] < material.count:
                found.append((overs[over] + depths[deeper], material.random.random(), over, deeper, wrong))
        if not found:
            return None
        _, _, over, deeper, chosen = min(found)
        grade = 1 if right == last else 2 if right > last else 3
        item = material.item(document, before, choices[right], [choices[depth] for depth in chosen], over, grade)
        if item is not None:
            overs[over] += 1
            depths[deeper] += 1
        return item

    return material.draw(line_places, make)


def name_order(material: Material) -> list[Item]:
    """Which line is unaltered? In each of the others two names or keywords are exchanged that stand together or one
    apart."""

    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        picked = material.pick("\n" + line, (3, ["\n" + one for one in _swaps(line)]))
        if picked is None:
            return None
        wrong, over = picked
        return material.item(document, before, "\n" + line, wrong, over)

    return material.draw(line_places, make)


def names(material: Material) -> list[Item]:
    """Which name comes next? One that the lines before hold; `near` others stand there too, `far` ones elsewhere in the
    source."""
    return _next_names(material, line_places, _NAME, LENGTHS)


def symbols(material: Material) -> list[Item]:
    """`names` in the examples of technical text: lines of an interpreter's session, numbers among the names."""
    return _next_names(material, _session_places, re.compile(r"\w+"), 0)


def _next_names(
    material: Material, places: Callable[[Document], list[Place]], pattern: re.Pattern[str], width: int
) -> list[Item]:
    known: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for document in material.documents:
        for name in _in(document.text, pattern):
            known[document.source][len(name)].add(name)

    @cache
    def alike(source: str, length: int) -> Alike:
        return Alike((f" {name}" for name in known[source][length]), material.usual)

    def make(document: Document, place: Place) -> Item | None:
        before, line = place
        seen = _in(before, pattern)
        uses = [one for one in pattern.finditer(line) if one[0] in seen and one.start() > _indent(line)]
        if not uses:
            return None
        use = material.random.choice(uses)
        name, after = use[0], line[use.end() : use.end() + 1].strip()
        lengths = material.window(len(name), width)
        value = material.how_usual(f" {name}")
        far = [
            one
            for length in lengths
            for text in alike(document.source, length).near(value, NAMES)
            if (one := text.strip()) not in seen
        ]
        near = sorted(one for one in seen if len(one) in lengths)
        # A blank before the name belongs to the choice, as lm-eval would have it.
        start = f"{before}\n{line[: use.start()]}"
        context = start.rstrip(" ")
        blank = start[len(context) :]
        some, others = (
            [f"{blank}{one}{after}" for one in part if not one.startswith(name) and not name.startswith(one)]
            for part in (near, far)
        )
        picked = material.graded(f"{blank}{name}{after}", some, others)
        return picked and material.item(document, context, f"{blank}{name}{after}", *picked)

    return material.draw(places, make)


def _in(text: str, pattern: re.Pattern[str]) -> set[str]:
    return {one for one in pattern.findall(text) if one.isascii() and not keyword.iskeyword(one)}


def _session_places(document: Document) -> list[Place]:
    lines = document.text.split("\n")
    return [
        (_before(lines, index), line)
        for index, line in enumerate(lines)
        if index and len(line) <= 80 and line.lstrip().startswith((">>>", "...")) and lines[index - 1].strip()
    ]


def _swaps(line: str) -> list[str]:
    """The line with two names exchanged that stand together or one apart, in every way that changes it."""
    spans = [match.span() for match in _NAME.finditer(line)]
    pairs = [*zip(spans, spans[1:], strict=False), *zip(spans, spans[2:], strict=False)]
    swapped = {line[:a] + line[c:d] + line[b:c] + line[a:b] + line[d:] for (a, b), (c, d) in pairs}
    return sorted(swapped - {line})


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
