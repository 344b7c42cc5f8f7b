"""Which of the embedded suite's items stand in the training text.

An item is contaminated where `GRAM` words in a row, of which the right answer holds at least one, stand in a row in a
training document (13 words, lower case: GPT-3, arXiv 2005.14165, appendix C); one of fewer words, where all of them
do. Unlike there a mark of punctuation is a word: 13 such words are less text, so that more items are dropped.
"""

from __future__ import annotations

from davinci.data.ngrams import Gram, words

GRAM = 13


def grams(context: str, right: str) -> list[Gram]:
    """The rows of words that must not stand in the training text."""
    before = len(words(context.encode(), marks=True))
    row = words((context + right).encode(), marks=True)
    ends = range(max(min(before, len(row) - 1) + 1, min(GRAM, len(row))), len(row) + 1)
    return [tuple(row[max(0, end - GRAM) : end]) for end in ends]
