"""Benchmarks from held-out prose: the last word of a sentence, and the right order of words.

Wrong choices never differ in a way that length or word frequency alone would betray: a cloze's distractors have the
answer's byte length and about its frequency; a swap keeps every byte of the true continuation, exchanging two words.
"""

from __future__ import annotations

import re
from collections import Counter
from random import Random

from davinci.evaluation.documents import Document, Item, clip_left, draw, surround, with_label

CONTEXT_BYTES = 120
CHOICES = 4
NEIGHBOURS = 8
RAREST = 3

_SENTENCE = re.compile(r"(?<=[.!?])[ ]+(?=[A-Z])")
_WORD = re.compile(r"\b[a-z]{4,12}\b")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z ,;:'’()-]*[.!?]")


def paragraphs(text: str) -> list[list[str]]:
    """Sentences of each paragraph, line breaks folded to spaces."""
    return [_SENTENCE.split(" ".join(block.split())) for block in re.split(r"\n\s*\n", text)]


def plain_sentences(document: Document) -> list[tuple[str, str]]:
    """``(what precedes it in its paragraph, sentence)`` of every sentence of 8 to 32 ordinary words."""
    found = []
    for sentences in paragraphs(document.text):
        for index, sentence in enumerate(sentences):
            if _PLAIN.fullmatch(sentence) and 8 <= len(sentence.split()) <= 32:
                found.append((" ".join(sentences[:index]), sentence))
    return found


def _words_by_source(documents: list[Document]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for document in documents:
        counts.setdefault(document.source, Counter()).update(_WORD.findall(document.text))
    return counts


def cloze(documents: list[Document], random: Random, count: int) -> list[Item]:
    """Which word ends the sentence? Three other words of the same source and byte length and about as frequent.

    Of the words of that length, the distractors are among the `NEIGHBOURS` next less and next more frequent ones.
    """
    counts = _words_by_source(documents)
    ranked: dict[tuple[str, int], list[str]] = {}
    for source, words in counts.items():
        for word in sorted(words, key=lambda word: (words[word], word)):
            ranked.setdefault((source, len(word)), []).append(word)

    def make(document: Document, place: tuple[str, str]) -> Item | None:
        before, sentence = place
        start, _, word = sentence[:-1].rpartition(" ")
        if not _WORD.fullmatch(word) or counts[document.source][word] < RAREST:
            return None
        alike = ranked[document.source, len(word)]
        rank = alike.index(word)
        below = [other for other in alike[max(0, rank - NEIGHBOURS) : rank] if other not in sentence]
        above = [other for other in alike[rank + 1 : rank + 1 + NEIGHBOURS] if other not in sentence]
        wrong = surround(word, below, above, CHOICES - 1, random)
        if wrong is None:
            return None
        context = clip_left(f"{before} {start}".strip(), CONTEXT_BYTES)
        end = sentence[-1]
        return with_label(document, context, f" {word}{end}", [f" {other}{end}" for other in wrong], random)

    return draw([(document, plain_sentences(document)) for document in documents], make, random, count)


def word_order(documents: list[Document], random: Random, count: int) -> list[Item]:
    """Which continuation is unaltered? In each of the others two neighbouring words are exchanged."""

    def make(document: Document, place: tuple[str, str]) -> Item | None:
        before, sentence = place
        words = sentence.split()
        middle = len(words) // 2
        start, tail = words[:middle], words[middle : middle + 8]
        swappable = [
            index
            for index in range(len(tail) - 1)
            if tail[index] != tail[index + 1] and tail[index].isalpha() and tail[index + 1].isalpha()
        ]
        if len(swappable) < CHOICES - 1:
            return None
        wrong = []
        for index in random.sample(swappable, CHOICES - 1):
            changed = [*tail]
            changed[index], changed[index + 1] = tail[index + 1], tail[index]
            wrong.append(" " + " ".join(changed))
        context = clip_left(" ".join([before, *start]).strip(), CONTEXT_BYTES)
        return with_label(document, context, " " + " ".join(tail), wrong, random)

    return draw([(document, plain_sentences(document)) for document in documents], make, random, count)
