"""The arithmetic benchmark, from held-out question-answer documents: one item file for both protocols.

Prompt and choices have the documents' own form, so that a small model meets what it practised: the choices are
``42 + 5 = 47.`` and the same with another result, and what the model writes is read for its last number.
"""

from __future__ import annotations

import re
from collections import Counter
from random import Random

from davinci.evaluation.documents import Document, Item, draw, with_label

CHOICES = 4
# One step, no carry: harder grades stay at zero for as long as a tiny model is trained.
GRADES = (1, 2)
PROMPT_END = "\nAnswer:"
# Wordings of one problem that are asked: the problems of the easiest grade are few.
WORDINGS = 2

_EQUATION = re.compile(r"(\d+) ([-+*]) (\d+) = (-?\d+)\.")

Place = tuple[str, "re.Match[str]"]


def questions(documents: list[Document], random: Random, count: int) -> list[Item]:
    """What is the answer? The three wrong results have as many digits as the right one and differ by at most 12."""
    asked: Counter[tuple[str, ...]] = Counter()

    def make(document: Document, place: Place) -> Item | None:
        context, equation = place
        first, sign, second, result = equation.groups()
        problem = (sign, first, second) if sign == "-" else (sign, *sorted((first, second)))
        if asked[problem] == WORDINGS:
            return None
        right = f" {equation.group()}"
        wrong = [f" {first} {sign} {second} = {other}." for other in _wrong(result, random)]
        item = with_label(document, context, right, wrong, random)
        if item is None:
            return None
        asked[problem] += 1
        return {**item, "answer": result, "grade": document.fields["grade"]}

    return draw([(document, _places(document)) for document in documents], make, random, count)


def _places(document: Document) -> list[Place]:
    """The prompt and the equation of a document of the chosen grades, else nothing."""
    if document.fields.get("grade") not in GRADES:
        return []
    start, found, _ = document.text.partition(PROMPT_END)
    equation = _EQUATION.fullmatch(str(document.fields["answer"]).strip())
    return [(start + PROMPT_END, equation)] if found and equation else []


def _wrong(result: str, random: Random) -> list[str]:
    """Three other numbers with as many digits, at most 12 away."""
    value = int(result)
    low, high = (0, 9) if value < 10 else (10 ** (len(result) - 1), 10 ** len(result) - 1)
    near = [other for other in range(max(low, value - 12), min(high, value + 12) + 1) if other != value]
    return [str(other) for other in random.sample(near, CHOICES - 1)]
