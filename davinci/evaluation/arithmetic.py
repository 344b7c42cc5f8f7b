"""The arithmetic benchmark, from held-out question-answer documents: one item file for both protocols.

Prompt and choices have the documents' own form, so that a small model meets what it practised: the choices are the
document's answer and the same with another result, and what the model writes is read for its last number.
"""

from __future__ import annotations

import re
from collections import Counter
from random import Random

from davinci.evaluation.documents import Document, Item, draw, with_label

CHOICES = 4
# The easiest: harder ones stay near zero for as long as a tiny model is trained.
GRADES = (1,)
PROMPT_END = "\nAnswer:"

_NUMBER = re.compile(r"\d+")

Place = tuple[str, str]


def questions(documents: list[Document], random: Random, count: int) -> list[Item]:
    """What is the answer? The three wrong results have as many digits as the right one and differ by at most 12.

    A problem (its numbers and its result) is asked as seldom as the documents allow, in different wordings.
    """
    places = [(document, _places(document)) for document in documents]
    problems = Counter(_problem(*place) for _, found in places for place in found)
    wordings = 1
    while sum(min(times, wordings) for times in problems.values()) < count and wordings < max(problems.values()):
        wordings += 1
    asked: Counter[tuple[str, ...]] = Counter()

    def make(document: Document, place: Place) -> Item | None:
        context, answer = place
        problem = _problem(context, answer)
        if asked[problem] == wordings:
            return None
        result = _NUMBER.findall(answer)[-1]
        start, _, end = answer.rpartition(result)
        wrong = [f" {start}{other}{end}" for other in _wrong(result, random)]
        item = with_label(document, context, f" {answer}", wrong, random)
        if item is None:
            return None
        asked[problem] += 1
        return {**item, "answer": result, "grade": document.fields["grade"]}

    return draw(places, make, random, count)


def _places(document: Document) -> list[Place]:
    """The prompt and the answer of a document of the chosen grades with one step at most, else nothing."""
    if document.fields.get("grade") not in GRADES:
        return []
    start, found, rest = document.text.partition(PROMPT_END)
    answer = rest.strip()
    return [(start + PROMPT_END, answer)] if found and _NUMBER.search(answer) and answer.count("=") < 2 else []


def _problem(context: str, answer: str) -> tuple[str, ...]:
    return (*sorted(_NUMBER.findall(context)), _NUMBER.findall(answer)[-1])


def _wrong(result: str, random: Random) -> list[str]:
    """Three other numbers with as many digits, at most 12 away."""
    value = int(result)
    low, high = (0, 9) if value < 10 else (10 ** (len(result) - 1), 10 ** len(result) - 1)
    near = [other for other in range(max(low, value - 12), min(high, value + 12) + 1) if other != value]
    return [str(other) for other in random.sample(near, CHOICES - 1)]
