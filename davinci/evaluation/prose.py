"""Benchmarks from held-out prose: the last word of a sentence, the right order of words, and small words.

Neither length nor frequency betrays the right choice: a wrong word has its byte length and a swap keeps every byte, and
the right one is as often the most usual in the training text as any (`Material.pick`). An item of grade g has g - 1
wrong choices that are more usual than the right one.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache

from davinci.evaluation.documents import Alike, Document, Item, Material, clip_left

CONTEXT_BYTES = 72
TAIL_WORDS = 5
RAREST = 3
_SMALL = (
    "of to in is it as by be he we on at or so if no an "
    "the and for not are was but his all you can has had any may one who its "
    "that with this from have they will were upon when them been than such what "
    "into then only each some more must also"
)
# Of two, three and four letters.
FUNCTION_WORDS = frozenset(_SMALL.split())
AFTER = 2
# Words about as usual that are looked at for a cloze, on either side.
CANDIDATES = 12

_SENTENCE = re.compile(r"(?<=[.!?])[ ]+(?=[A-Z])")
_WORD = re.compile(r"\b[a-z]{4,12}\b")

Place = tuple[str, str]


def paragraphs(text: str) -> list[list[str]]:
    """Sentences of each paragraph, line breaks folded to spaces."""
    return [_SENTENCE.split(" ".join(block.split())) for block in re.split(r"\n\s*\n", text)]


def sentences(document: Document) -> list[Place]:
    """``(what precedes it in its paragraph, sentence)`` of every sentence of 6 to 40 words, most of them plain."""
    found = []
    for parts in paragraphs(document.text):
        for index, sentence in enumerate(parts):
            words = sentence.split()
            ordinary = sum(word.strip(",;:'’()").isalpha() for word in words[:-1])
            if 6 <= len(words) <= 40 and sentence[-1] in ".!?" and ordinary >= 0.75 * len(words) - 1:
                found.append((" ".join(parts[:index]), sentence))
    return found


def cloze(material: Material) -> list[Item]:
    """Which word ends the sentence? The others are words of the same source and byte length, about as usual."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for document in material.documents:
        counts[document.source].update(_WORD.findall(document.text))

    @cache
    def words(source: str, length: int) -> Alike:
        found = [f" {word}" for word, count in counts[source].items() if len(word) == length and count >= RAREST]
        return Alike(found, material.usual)

    def make(document: Document, place: Place) -> Item | None:
        before, sentence = place
        start, _, word = sentence[:-1].rpartition(" ")
        if not _WORD.fullmatch(word) or counts[document.source][word] < RAREST:
            return None
        end = sentence[-1]
        alike = words(document.source, len(word)).near(material.how_usual(f" {word}"), CANDIDATES)
        picked = material.pick(f" {word}{end}", [f"{one}{end}" for one in alike if one.strip() not in sentence])
        context = clip_left(f"{before} {start}".strip(), CONTEXT_BYTES)
        return picked and material.item(document, context, f" {word}{end}", *picked)

    return material.draw(sentences, make)


def word_order(material: Material) -> list[Item]:
    """Which continuation is unaltered? In the others two words are exchanged that stand together or one apart."""

    def make(document: Document, place: Place) -> Item | None:
        before, sentence = place
        words = sentence.split()
        middle = len(words) // 2
        start, tail = words[:middle], words[middle : middle + TAIL_WORDS]
        wrong = set()
        for distance in (1, 2):
            for index in range(len(tail) - distance):
                first, second = tail[index], tail[index + distance]
                if first.isalpha() and second.isalpha():
                    changed = [*tail]
                    changed[index], changed[index + distance] = second, first
                    wrong.add(" " + " ".join(changed))
        right = " " + " ".join(tail)
        picked = material.pick(right, sorted(wrong - {right}))
        context = clip_left(" ".join([before, *start]).strip(), CONTEXT_BYTES)
        return picked and material.item(document, context, right, *picked)

    return material.draw(sentences, make)


def function_words(material: Material) -> list[Item]:
    """Which small word stands here? The others are as long; the words after it are the same."""

    def make(document: Document, place: Place) -> Item | None:
        before, sentence = place
        words = sentence.split()
        places = [index for index in range(2, len(words) - 2) if words[index] in FUNCTION_WORDS]
        if not places:
            return None
        index = material.random.choice(places)
        after = " ".join(words[index + 1 : index + 1 + AFTER])
        others = [one for one in sorted(FUNCTION_WORDS) if len(one) == len(words[index]) and one != words[index]]
        right = f" {words[index]} {after}"
        picked = material.pick(right, [f" {one} {after}" for one in others])
        context = clip_left(" ".join([before, *words[:index]]).strip(), CONTEXT_BYTES)
        return picked and material.item(document, context, right, *picked)

    return material.draw(sentences, make)
