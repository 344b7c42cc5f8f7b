"""Rules that drop what no reader would miss, each drop counted by its reason.

The thresholds follow the kind of rule that Gopher (arXiv 2112.11446, A.1.1) and C4 (arXiv 1910.10683, 2.2) use, set for
the embedded pool's texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar, Literal

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.l2_rules.gopher import duplicates
from davinci.data.long_texts import NEWLINE, parts, stretches
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally

_WORD = re.compile(r"[^\W\d_]+")
_BLANK_LINE = re.compile(r"\n\n")
_SYMBOL = re.compile(r"[^\w\s.,;:!?'\"“”‘’()—–-]")


@operation("prose_paragraphs")
class ProseParagraphs(DocumentOperation):
    """Paragraphs that are sentences stay; headings, code and lists of names go."""

    level: ClassVar[Level] = "L2"

    def apply(self, document: Document, tally: Tally) -> Iterator[Document]:
        text, trimmed = prose_paragraphs(document.text)
        tally.count("paragraphs trimmed", trimmed)
        yield document if text == document.text else replace(document, text=text)


@operation("plain_rules")
class PlainRules(DocumentOperation):
    """A few rules for a `kind` of text: English prose, technical text, or Python programs."""

    level: ClassVar[Level] = "L2"
    kind: Literal["prose", "technical", "python"]

    def apply(self, document: Document, tally: Tally) -> Iterator[Document]:
        reason = _RULES[self.kind](document.text)
        if reason is None:
            yield document
        else:
            tally.drop(document, reason)


def prose_paragraphs(text: str) -> tuple[str, int]:
    """Keep the paragraphs that are sentences; return the text and how many went (headings, code, lists of names)."""
    paragraphs = parts(text.strip("\n"), _BLANK_LINE)
    kept = [one for one in paragraphs if _is_prose(one)]
    return "\n\n".join(kept) + "\n", len(paragraphs) - len(kept)


def _is_prose(paragraph: str) -> bool:
    return (
        not paragraph.startswith((" ", "\n"))
        and len(_WORD.findall(paragraph)) >= 8
        and paragraph.rstrip().endswith((".", "!", "?", '"', "”", "'", "’", ":", ")", ";", "--", "—"))
        and len(_SYMBOL.findall(paragraph)) <= 0.03 * len(paragraph)
    )


def prose(text: str) -> str | None:
    """English prose: long enough, mostly words, not the same lines again and again."""
    words, characters = _words(text)
    if words < 50:
        return "too short"
    if _symbols(text) > 0.03 * len(text):
        return "too many symbols"
    if not 3 <= characters / words <= 10:
        return "odd word length"
    return _repetition(text)


def technical(text: str) -> str | None:
    """Mathematical and technical text: has something to say; symbols are welcome, walls of them are not."""
    if _words(text)[0] < 20:
        return "too short"
    if _symbols(text) > 0.3 * len(text):
        return "too many symbols"
    if text.count("\n") and max(map(len, parts(text, NEWLINE))) > 5000:
        return "overlong line"
    return _repetition(text)


def python_code(text: str) -> str | None:
    """Program text a person wrote: not a stub, not a data table."""
    if len(text) < 200:
        return "too short"
    if max(map(len, parts(text, NEWLINE))) > 1000:
        return "overlong line"
    if sum(map(str.isdigit, text)) > 0.2 * len(text):
        return "too many digits"
    if sum(map(str.isalpha, text)) < 0.4 * len(text):
        return "too few letters"
    return _repetition(text)


def _repetition(text: str) -> str | None:
    found = duplicates(one for one in map(str.strip, parts(text, NEWLINE)) if len(one) > 20)
    return "repeated lines" if found.again_characters > 0.3 * max(1, found.characters) else None


def _words(text: str) -> tuple[int, int]:
    """How many words a text has, and their characters."""
    count = characters = 0
    for stretch in stretches(text):
        words = _WORD.findall(stretch)
        count += len(words)
        characters += sum(map(len, words))
    return count, characters


def _symbols(text: str) -> int:
    return sum(len(_SYMBOL.findall(stretch)) for stretch in stretches(text))


_RULES: dict[str, Callable[[str], str | None]] = {"prose": prose, "technical": technical, "python": python_code}
