"""Whether a refined text says what the original said: a check by its numbers, names and length.

It is necessary, not sufficient: a text may keep every number and name and still turn a statement round. What it catches
is what small models do most: invent a figure, a person or a function, leave half of the text out, write something
else, or go on writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import model_validator

from davinci.config.base import Frozen, NotNegativeFloat, PositiveFloat

_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)*")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_IDENTIFIER = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_QUOTED = re.compile(r'"([^"\n]{1,200})"|“([^”\n]{1,200})”|`([^`\n]{1,200})`|(?<!\w)\'([^\'\n]{1,200})\'(?!\w)')
_SENTENCE_ENDS = frozenset('.!?:;\n•*-–—("“#')
_COUNTED = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_VALUES = {word: str(value) for value, word in enumerate(_COUNTED)}

NEW_NUMBERS, NEW_NAMES, NEW_QUOTES = "new numbers", "new names", "new quotations"
TOO_SHORT, TOO_LONG = "too short", "too long"
MISSING, MISSING_WORDS = "missing numbers", "missing words"
_CONTENT = 4  # letters of a word that counts as content


class Limits(Frozen):
    """How far a refined text may be from its original.

    `shortest` and `longest` bound its length in words, relative to the original's; `missing_numbers` is the share of
    the original's different numbers that it may leave out, `missing_words` that of its different words of four letters
    and more.
    """

    shortest: NotNegativeFloat = 0.5
    longest: PositiveFloat = 1.5
    missing_numbers: NotNegativeFloat = 0.1
    missing_words: NotNegativeFloat = 0.5

    @model_validator(mode="after")
    def _in_order(self) -> Limits:
        if self.shortest > self.longest:
            raise ValueError(f"shortest: {self.shortest:g} is above longest, {self.longest:g}")
        return self


def unfaithful(original: str, refined: str, limits: Limits) -> str | None:
    """Why `refined` is not faithful to `original` (one of the reasons above), or None.

    Numbers agree however their thousands are grouped, and numbers up to twelve may be words. A name is a capitalised
    word inside a sentence or an identifier (``snake_case``, ``camelCase``, ``dotted.name``); it is new where the
    original has no such word in any case of its letters. A quotation is new where the original has no such text.
    """
    length, refined_length = len(original.split()), len(refined.split())
    if refined_length < limits.shortest * length:
        return TOO_SHORT
    if refined_length > limits.longest * length:
        return TOO_LONG
    stated = numbers(original)
    kept = numbers(refined)
    if kept - stated - _spelled(original):
        return NEW_NUMBERS
    if {one for one in _spelled(refined) if one != "1"} - _spelled(original) - stated:
        return NEW_NUMBERS
    if stated and len(stated - kept - _spelled(refined)) > limits.missing_numbers * len(stated):
        return MISSING
    words = _words(original)
    if any(name.casefold() not in words for name in names(refined)):
        return NEW_NAMES
    flat = " ".join(original.split()).casefold()
    if any(" ".join(quoted.split()).casefold() not in flat for quoted in _quotations(refined)):
        return NEW_QUOTES
    content = {word for word in map(str.casefold, _WORD.findall(original)) if len(word) >= _CONTENT}
    if len(content - _words(refined)) > limits.missing_words * len(content):
        return MISSING_WORDS
    return None


def numbers(text: str) -> set[str]:
    """The different numbers of a text, written alike: no grouped thousands, no zeros in front or behind the point."""
    return {_plain(found) for found in _NUMBER.findall(text)}


def names(text: str) -> Iterator[str]:
    """Capitalised words inside sentences, and identifiers."""
    for found in _IDENTIFIER.finditer(text):
        word = found[0]
        if not word.strip("_"):
            continue
        if "_" in word or "." in word or re.search(r"[a-z][A-Z]", word):
            yield from word.split(".") if "." in word else (word,)
        elif word[0].isupper() and len(word) > 1 and not _starts_sentence(text, found.start()):
            yield word


def _starts_sentence(text: str, place: int) -> bool:
    before = text[max(0, place - 80) : place].rstrip(" \t'\"“(*`")
    return not before or before[-1] in _SENTENCE_ENDS or re.search(r"\n\s*(?:\d+[.)])?\s*$", before) is not None


def _plain(number: str) -> str:
    whole, point, rest = number.replace(",", "").partition(".")
    rest = rest.rstrip("0") if "." not in rest else rest
    return (whole.lstrip("0") or "0") + (point + rest if rest else "")


def _spelled(text: str) -> set[str]:
    return {_VALUES[word] for word in map(str.casefold, _WORD.findall(text)) if word in _VALUES}


def _words(text: str) -> set[str]:
    """Every word of a text and every identifier and part of one, without regard to case; plurals too."""
    found = {word.casefold() for word in _WORD.findall(text)}
    found |= {word.casefold().removesuffix("'s").removesuffix("’s") for word in found}
    for identifier in _IDENTIFIER.findall(text):
        found |= {identifier.casefold(), *identifier.casefold().split(".")}
    return found | {f"{word}s" for word in found} | {word.removesuffix("s") for word in found}


def _quotations(text: str) -> Iterator[str]:
    for groups in _QUOTED.findall(text):
        yield from (one.strip(" .,;:") for one in groups if one)
