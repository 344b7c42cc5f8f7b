"""Gopher's quality and repetition rules (Rae et al., arXiv 2112.11446, section A.1.1 and table A1).

What the paper leaves open is decided as datatrove decides it, with which FineWeb was made, so that the same documents
go: punctuation marks are words, but do not count towards a document's length or its mean word length; a line or
paragraph is a duplicate from its second time on; repeated n-grams are looked for from left to right, and the search
goes on behind each one found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import regex
from pydantic import Field

from davinci.config.base import NotNegative, NotNegativeFloat, Positive
from davinci.data.documents import Document
from davinci.data.l2_rules.document_rule import DocumentRule, Share
from davinci.data.l2_rules.ngrams import WordGrams
from davinci.data.l2_rules.words import SIGNS, words_in
from davinci.data.long_texts import NEWLINE, parts, stretches
from davinci.data.operations import operation

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
_SIGN = regex.compile(rf"[{regex.escape(SIGNS)}\p{{Sentence_Terminal}}]*")
_PARAGRAPH, _LINE = re.compile(r"\n{2,}"), re.compile(r"\n+")


class _Kinds(dict[str, int]):
    """Of each word: 2 where it has a letter, 1 where it is more than signs; added up."""

    def __missing__(self, word: str) -> int:
        kind = (_SIGN.fullmatch(word) is None) + 2 * any(map(str.isalpha, word))
        if len(self) >= 1 << 18:
            self.clear()
        self[word] = kind
        return kind


_kinds = _Kinds()


@operation("gopher_quality")
class GopherQuality(DocumentRule):
    """Length, word length, symbols, bullets, ellipses, letters and stop words. Defaults: the paper's, A.1.1."""

    min_words: NotNegative = 50
    max_words: NotNegative = 100_000
    min_mean_word_length: NotNegativeFloat = 3.0
    max_mean_word_length: NotNegativeFloat = 10.0
    max_symbols_per_word: NotNegativeFloat = 0.1
    """Hash signs a word, and ellipses a word."""
    max_bullet_lines: Share = 0.9
    max_ellipsis_lines: Share = 0.3
    min_alphabetic_words: Share = 0.8
    min_stop_words: NotNegative = 2
    stop_words: tuple[str, ...] = STOP_WORDS

    def reason(self, document: Document) -> str | None:
        text = document.text
        number = count = letters = characters = 0
        for words in words_in(text):
            kinds = np.fromiter(map(_kinds.__getitem__, words), np.uint8, len(words))
            real = (kinds & 1).astype(bool)
            number += len(words)
            count += int(real.sum())
            characters += int(np.fromiter(map(len, words), np.int64, len(words))[real].sum())
            letters += int((kinds >= 2).sum())
            if count > max(self.min_words, self.max_words):
                return "too many words"
        if count < self.min_words or not number:
            return "too few words"
        if count > self.max_words:
            return "too many words"
        if count:
            mean = characters / count
            if mean < self.min_mean_word_length:
                return "words too short"
            if mean > self.max_mean_word_length:
                return "words too long"
        if text.count("#") / number > self.max_symbols_per_word:
            return "too many hash signs"
        if (text.count("...") + text.count("…")) / number > self.max_symbols_per_word:
            return "too many ellipses"
        lines = bullets = ellipses = 0
        for some in map(str.splitlines, stretches(text, NEWLINE)):
            lines += len(some)
            bullets += sum(line.lstrip().startswith(("•", "-")) for line in some)
            ellipses += sum(line.rstrip().endswith(("...", "…")) for line in some)
        if bullets / lines > self.max_bullet_lines:
            return "too many bullet lines"
        if ellipses / lines > self.max_ellipsis_lines:
            return "too many lines end in an ellipsis"
        if letters / number < self.min_alphabetic_words:
            return "too few words with letters"
        return None if self._has_stop_words(text) else "too few stop words"

    def _has_stop_words(self, text: str) -> bool:
        found: set[str] = set()
        for words in words_in(text) if self.min_stop_words else ():
            found |= set(self.stop_words).intersection(words)
            if len(found) >= self.min_stop_words:
                break
        return len(found) >= self.min_stop_words


@operation("gopher_repetition")
class GopherRepetition(DocumentRule):
    """Lines, paragraphs and n-grams that repeat, as shares of a document. Defaults: table A1."""

    max_duplicate_lines: Share = 0.3
    max_duplicate_paragraphs: Share = 0.3
    max_duplicate_line_characters: Share = 0.2
    max_duplicate_paragraph_characters: Share = 0.2
    max_top_ngram: dict[Positive, Share] = Field(default={2: 0.2, 3: 0.18, 4: 0.16})
    """Characters of the commonest n-gram, all its times together, by n."""
    max_duplicate_ngrams: dict[Positive, Share] = Field(default={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10})
    """Characters of all n-grams that stood before, by n."""

    def reason(self, document: Document) -> str | None:
        text = document.text
        if not text:
            return "empty"
        found = duplicates(parts(text.strip(), _PARAGRAPH))
        if found.again / found.parts > self.max_duplicate_paragraphs:
            return "duplicate paragraphs"
        if found.again_characters / len(text) > self.max_duplicate_paragraph_characters:
            return "characters in duplicate paragraphs"
        found = duplicates(parts(text, _LINE))
        if found.again / found.parts > self.max_duplicate_lines:
            return "duplicate lines"
        if found.again_characters / len(text) > self.max_duplicate_line_characters:
            return "characters in duplicate lines"
        grams = WordGrams(words_in(text))
        for n, share in sorted(self.max_top_ngram.items()):
            if grams.commonest_exceeds(n, share, len(text)):
                return f"commonest {n}-gram"
        limits = sorted(self.max_duplicate_ngrams.items())
        # A longer n-gram that stood before covers words that shorter ones which stood before cover too.
        if limits and grams.covered(limits[0][0]) / len(text) > min(share for _, share in limits):
            for n, share in limits:
                if grams.repeated_exceed(n, share, len(text)):
                    return f"duplicate {n}-grams"
        return None


class Duplicates(NamedTuple):
    """How many parts a text has, and how many of them stood in it before; the characters of both."""

    parts: int
    characters: int
    again: int
    again_characters: int


def duplicates(parts: Iterable[str]) -> Duplicates:
    """Of the parts in a list; of others, which may be very many, by a hash of 64 bits each."""
    if isinstance(parts, list):
        seen = set(parts)
        characters, different = sum(map(len, parts)), sum(map(len, seen))
        return Duplicates(len(parts), characters, len(parts) - len(seen), characters - different)
    found = np.fromiter(((hash(one), len(one)) for one in parts), np.dtype([("hash", np.int64), ("size", np.int64)]))
    sizes = found["size"]
    first = np.unique(found["hash"], return_index=True)[1]
    characters, different = int(sizes.sum()), int(sizes[first].sum())
    return Duplicates(len(found), characters, len(found) - len(first), characters - different)
