"""Benchmarks from held-out prose: the last word of a sentence, the right order of words, and what comes next.

Wrong choices never differ in a way that length or frequency alone would betray: a cloze's have the answer's byte length,
a swap keeps every byte of the true continuation, and the beginning of another sentence is about as long; and the right
one is as often the most usual in the training text as any (`Material.pick`). An item of grade g has g - 1 wrong choices
of its own source; in the order of words it has g - 1 that are more usual than the right one.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache

from davinci.evaluation.documents import Alike, Document, Item, Material, clip_left

CONTEXT_BYTES = 80
TAIL_WORDS = 6
RAREST = 3
OPENING_WORDS = 6
# Texts about as usual that are looked at for an item, on either side.
CANDIDATES = 8

_SENTENCE = re.compile(r"(?<=[.!?])[ ]+(?=[A-Z])")
_WORD = re.compile(r"\b[a-z]{4,12}\b")
_PLAIN = re.compile(r"[A-Z][A-Za-z ,;:'’()-]*")

Place = tuple[str, str]


def paragraphs(text: str) -> list[list[str]]:
    """Sentences of each paragraph, line breaks folded to spaces."""
    return [_SENTENCE.split(" ".join(block.split())) for block in re.split(r"\n\s*\n", text)]


def sentences(document: Document) -> list[Place]:
    """``(what precedes it in its paragraph, sentence)`` of every sentence of 6 to 40 words, most of them ordinary ones."""
    found = []
    for parts in paragraphs(document.text):
        for index, sentence in enumerate(parts):
            words = sentence.split()
            ordinary = sum(word.strip(",;:'’()").isalpha() for word in words[:-1])
            if 6 <= len(words) <= 40 and sentence[-1] in ".!?" and ordinary >= 0.75 * len(words) - 1:
                found.append((" ".join(parts[:index]), sentence))
    return found


def cloze(material: Material) -> list[Item]:
    """Which word ends the sentence? Other words of the same byte length and about as usual: `near` ones of the same
    source, `far` ones that only other sources of the domain have."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for document in material.documents:
        counts[document.source].update(_WORD.findall(document.text))

    @cache
    def words(source: str, length: int) -> tuple[Alike, Alike]:
        near = {word for word, count in counts[source].items() if len(word) == length and count >= RAREST}
        others = {word for other in counts.values() for word, count in other.items() if count >= RAREST}
        far = {word for word in others if len(word) == length and word not in counts[source]}
        return Alike((f" {word}" for word in near), material.usual), Alike((f" {word}" for word in far), material.usual)

    def make(document: Document, place: Place) -> Item | None:
        before, sentence = place
        start, _, word = sentence[:-1].rpartition(" ")
        if not _WORD.fullmatch(word) or counts[document.source][word] < RAREST:
            return None
        end, value = sentence[-1], material.how_usual(f" {word}")
        near, far = (
            [f"{one}{end}" for one in alike.near(value, CANDIDATES) if one.strip() not in sentence]
            for alike in words(document.source, len(word))
        )
        picked = material.graded(f" {word}{end}", near, far)
        context = clip_left(f"{before} {start}".strip(), CONTEXT_BYTES)
        return picked and material.item(document, context, f" {word}{end}", *picked)

    return material.draw(sentences, make)


def word_order(material: Material) -> list[Item]:
    """Which continuation is unaltered? In each of the others two words are exchanged that stand together or one apart."""

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
        picked = material.pick(right, (3, sorted(wrong - {right})))
        if picked is None:
            return None
        chosen, over = picked
        context = clip_left(" ".join([before, *start]).strip(), CONTEXT_BYTES)
        return material.item(document, context, right, chosen, over)

    return material.draw(sentences, make)


def continuation(material: Material) -> list[Item]:
    """How does the next sentence begin? The others are beginnings of sentences elsewhere, about as long and as usual:
    `near` ones of the same source."""
    openings: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for document in material.documents:
        for _, sentence in _following(document):
            words = sentence.split()
            for size in range(OPENING_WORDS - 1, OPENING_WORDS + 2):
                opening = " " + " ".join(words[:size])
                openings[document.source][len(opening.encode())].add(opening)

    @cache
    def alike(source: str, length: int) -> Alike:
        return Alike(openings[source][length], material.usual)

    def make(document: Document, place: Place) -> Item | None:
        before, sentence = place
        right = " " + " ".join(sentence.split()[:OPENING_WORDS])
        value = material.how_usual(right)
        lengths = material.window(len(right.encode()), 2)
        near: list[str] = []
        far: list[str] = []
        for source in openings:
            found = [one for length in lengths for one in alike(source, length).near(value, CANDIDATES)]
            some = [one for one in found if one.split()[:2] != right.split()[:2] and one not in before]
            (near if source == document.source else far).extend(some)
        picked = material.graded(right, near, far)
        return picked and material.item(document, clip_left(before, CONTEXT_BYTES), right, *picked)

    return material.draw(_following, make)


def _following(document: Document) -> list[Place]:
    """``(the three sentences before, sentence)`` of every sentence that begins with ordinary words, over the paragraphs'
    ends."""
    parts = [one for some in paragraphs(document.text) for one in some if len(one.split()) >= OPENING_WORDS]
    return [
        (" ".join(parts[max(0, index - 3) : index]), sentence)
        for index, sentence in enumerate(parts)
        if index and parts[index - 1][-1] in ".!?" and _PLAIN.fullmatch(" ".join(sentence.split()[:OPENING_WORDS]))
    ]
