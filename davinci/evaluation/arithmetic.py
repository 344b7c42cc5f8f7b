"""The arithmetic benchmark, from held-out question-answer documents: one item file for both protocols.

Prompt and choices have the documents' own form, so that a small model meets what it practised: the choices are the
document's answer and the same with another result, and what the model writes is read for its last number.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from davinci.evaluation.documents import Document, Item, Material

# Grade of a document -> of an item: facts up to 5, one step with numbers up to 100, a story of one step. Those of
# several steps stay near zero for as long as a small model is trained.
GRADES = {1: 1, 2: 2, 6: 3}
PROMPT_END = "\nAnswer:"
NEAREST = 12

_NUMBER = re.compile(r"\d+")

Place = tuple[str, str]


def questions(material: Material) -> list[Item]:
    """What is the answer? The three wrong results have as many digits as the right one and differ by at most 12.

    Problems (numbers and result) that were asked already, in another wording, come after those that were not.
    """
    material = replace(material, count=len(material.documents))
    asked: Counter[tuple[str, ...]] = Counter()
    order: dict[str, int] = {}

    def make(document: Document, place: Place) -> Item | None:
        context, answer = place
        result = _NUMBER.findall(answer)[-1]
        start, _, end = answer.rpartition(result)
        others = [f" {start}{other}{end}" for other in _near(result)]
        picked = material.pick(f" {answer}", others)
        item = picked and material.item(document, context, f" {answer}", *picked, GRADES[document.fields["grade"]])
        if item is None:
            return None
        problem = (*sorted(_NUMBER.findall(context)), result)
        order[context] = asked[problem]
        asked[problem] += 1
        return {**item, "answer": result}

    return sorted(material.draw(_places, make), key=lambda item: order[item["context"]])


def _places(document: Document) -> list[Place]:
    """The prompt and the answer of a document of the chosen grades with one step at most, else nothing."""
    if document.fields.get("grade") not in GRADES:
        return []
    start, found, rest = document.text.partition(PROMPT_END)
    answer = rest.strip()
    return [(start + PROMPT_END, answer)] if found and _NUMBER.search(answer) and answer.count("=") < 2 else []


def _near(result: str) -> list[str]:
    """The other numbers with as many digits, at most `NEAREST` away."""
    value = int(result)
    low, high = (0, 9) if value < 10 else (10 ** (len(result) - 1), 10 ** len(result) - 1)
    near = range(max(low, value - NEAREST), min(high, value + NEAREST) + 1)
    return [str(other) for other in near if other != value]
