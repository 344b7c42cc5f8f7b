"""The arithmetic benchmark, from held-out question-answer documents: one item file for both protocols.

The prompt is the documents' own beginning, so that a small model meets the form it was trained on.
"""

from __future__ import annotations

import re
from random import Random

from davinci.evaluation.documents import Document, Item, draw, with_label

CHOICES = 4
GRADES = (1, 2)
PROMPT_END = "\nAnswer:"

_LAST_NUMBER = re.compile(r"-?\d+(?!.*\d)", re.DOTALL)


def questions(documents: list[Document], random: Random, count: int) -> list[Item]:
    """What is the answer? Three other numbers of the same length, near the right one or with one digit changed."""

    def make(document: Document, place: tuple[str, str]) -> Item | None:
        context, answer = place
        item = with_label(document, context, f" {answer}", [f" {one}" for one in _wrong(answer, random)], random)
        return item and {**item, "answer": answer, "grade": document.fields["grade"]}

    return draw([(document, _places(document)) for document in documents], make, random, count)


def _places(document: Document) -> list[tuple[str, str]]:
    """The prompt and the final number of an arithmetic document of the chosen grades, else nothing."""
    if document.fields.get("grade") not in GRADES:
        return []
    start, found, _ = document.text.partition(PROMPT_END)
    answer = _LAST_NUMBER.search(str(document.fields["answer"]))
    return [(start + PROMPT_END, answer.group())] if found and answer else []


def _wrong(answer: str, random: Random) -> list[str]:
    """Three other numbers with as many digits and the same sign, within 12 of the right one where there are enough."""
    value = abs(int(answer))
    digits = len(str(value))
    low, high = (10 ** (digits - 1) if digits > 1 else 0), 10**digits - 1
    near = [other for other in range(max(low, value - 12), min(high, value + 12) + 1) if other != value]
    sign = "-" if answer.startswith("-") else ""
    return [f"{sign}{other}" for other in random.sample(near, CHOICES - 1)]
