"""What a benchmark gives away without its context: scores of guessing by length and by word frequency."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

from davinci.evaluation.documents import Document, Item

_LEXEME = re.compile(r"\w+|[^\w\s]")


def baselines(items: list[Item], documents: list[Document]) -> dict[str, float]:
    """Accuracy of rules that see only the choices; ties count as an even guess among the tied.

    ``shortest`` and ``longest`` go by bytes; ``unigram`` takes the choice of the highest probability under word and
    symbol frequencies (add-one) of the `documents`.
    """
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(_LEXEME.findall(document.text))
    total = sum(counts.values()) + len(counts) + 1

    def unigram(choice: str) -> float:
        return sum(math.log((counts[part] + 1) / total) for part in _LEXEME.findall(choice))

    return {
        "chance": _mean([1 / len(item["choices"]) for item in items]),
        "shortest": _accuracy(items, lambda choice: -len(choice.encode("utf-8"))),
        "longest": _accuracy(items, lambda choice: len(choice.encode("utf-8"))),
        "unigram": _accuracy(items, lambda choice: round(unigram(choice), 9)),
    }


def _accuracy(items: list[Item], rule: Callable[[str], float]) -> float:
    scores = []
    for item in items:
        values = [rule(choice) for choice in item["choices"]]
        best = max(values)
        scores.append((values[item["label"]] == best) / values.count(best))
    return _mean(scores)


def _mean(values: list[float]) -> float:
    return round(math.fsum(values) / len(values), 4)
