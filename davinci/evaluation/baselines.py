"""What a benchmark gives away without its context: scores of guessing by length and by frequency."""

from __future__ import annotations

import math

from davinci.evaluation.documents import Item
from davinci.evaluation.training_text import Frequencies


def baselines(items: list[Item], frequencies: Frequencies) -> dict[str, float]:
    """Accuracy of rules that see only the choices; ties count as an even guess among the tied.

    ``shortest`` and ``longest`` go by bytes; ``unigram`` and ``bigram`` take the most probable choice under the
    training text's frequencies of tokens and of pairs of them.
    """
    lengths = [[float(len(choice.encode("utf-8"))) for choice in item["choices"]] for item in items]
    usual = [frequencies.of(item["choices"]).T.tolist() for item in items]
    return {
        "chance": _mean([1 / len(item["choices"]) for item in items]),
        "shortest": _accuracy(items, [[-one for one in values] for values in lengths]),
        "longest": _accuracy(items, lengths),
        "unigram": _accuracy(items, [single for single, _ in usual]),
        "bigram": _accuracy(items, [pairs for _, pairs in usual]),
    }


def _accuracy(items: list[Item], values: list[list[float]]) -> float:
    scores = []
    for item, some in zip(items, values, strict=True):
        best = max(some)
        scores.append((some[item["label"]] == best) / some.count(best))
    return _mean(scores)


def _mean(values: list[float]) -> float:
    return round(math.fsum(values) / len(values), 4)
