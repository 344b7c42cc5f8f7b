"""Which items stand in the training text.

An item is contaminated where `GRAM` words in a row, of which the right answer holds at least one, stand in a row in a
training document (13 words, lower case: GPT-3, arXiv 2005.14165, appendix C); one of fewer words, where all of them
do. Unlike there a mark of punctuation is a word of its own: in code and formulas it carries the meaning, and 13 such
words are less text, so that more items are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

import numpy as np
import numpy.typing as npt

GRAM = 13

Gram = tuple[bytes, ...]
Numbers = npt.NDArray[np.uint64]

_WORD = re.compile(rb"[a-z0-9_\x80-\xff]+|[^\sa-z0-9_\x80-\xff]")
_BASE, _STEP = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_BITS = 20


def grams(context: str, right: str) -> list[Gram]:
    """The rows of words that must not stand in the training text."""
    before = len(_words(context))
    words = _words(context + right)
    ends = range(max(min(before, len(words) - 1) + 1, min(GRAM, len(words))), len(words) + 1)
    return [tuple(words[max(0, end - GRAM) : end]) for end in ends]


def _words(text: str) -> list[bytes]:
    return _WORD.findall(text.encode("utf-8").lower())


def contained(wanted: Iterable[Gram], some: Iterable[npt.NDArray[np.uint8]]) -> set[Gram]:
    """Those of the rows of words that stand in a row in one of the texts, each uint8[n] of UTF-8.

    Words and rows of them are compared by 64-bit polynomial hashes: of 10^8 rows, none is taken for another.
    """
    by_length: dict[int, dict[int, Gram]] = {}
    # Most rows are none of those wanted: a bit map says so faster than a search.
    maps: dict[int, tuple[Numbers, npt.NDArray[np.bool_]]] = {}
    for length, alike in groupby(sorted(set(wanted), key=len), key=len):
        some_grams = list(alike)
        words = _hashes(np.frombuffer(b" ".join(word for gram in some_grams for word in gram), dtype=np.uint8))
        hashes = _rows(_Sums(words, _BASE), length)[::length]
        by_length[length] = dict(zip(hashes.tolist(), some_grams, strict=True))
        maps[length] = (np.sort(hashes), np.zeros(1 << _BITS, dtype=np.bool_))
        maps[length][1][hashes >> np.uint64(64 - _BITS)] = True
    found: set[Gram] = set()
    for text in some:
        sums = _Sums(_hashes(text), _BASE)
        for length, (hashes, bits) in maps.items():
            if sums.count < length:
                continue
            rows = _rows(sums, length)
            rows = rows[bits[rows >> np.uint64(64 - _BITS)]]
            places = np.minimum(np.searchsorted(hashes, rows), len(hashes) - 1)
            found.update(by_length[length][int(one)] for one in np.unique(rows[hashes[places] == rows]))
    return found


def _kinds() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Of each byte: 0 blank, 1 a mark, 2 part of a word; and its lower case."""
    kinds = np.ones(256, dtype=np.uint8)
    kinds[[*range(0x09, 0x0E), 0x20]] = 0
    kinds[[*range(0x30, 0x3A), *range(0x41, 0x5B), 0x5F, *range(0x61, 0x7B), *range(0x80, 0x100)]] = 2
    lower = np.arange(256, dtype=np.uint8)
    lower[0x41:0x5B] += 32
    return kinds, lower


_KINDS, _LOWER = _kinds()


def _hashes(text: npt.NDArray[np.uint8]) -> Numbers:
    """A hash of each word of a text, uint64[words]."""
    kinds = _KINDS[text]
    inside = kinds == 2
    begins = kinds == 1
    begins[inside & ~np.concatenate(([False], inside[:-1]))] = True
    ends = kinds == 1
    ends[inside & ~np.concatenate((inside[1:], [False]))] = True
    first, last = np.flatnonzero(begins), np.flatnonzero(ends)
    letters = _Sums(_LOWER[text].astype(np.uint64), _STEP)
    return _mixed((letters.sums[last + 1] - letters.sums[first]) * letters.inverse[first])


class _Sums:
    """Values as a polynomial of `base`, modulo 2^64, summed up to each place: a stretch of them is a difference of two
    sums, divided by the power of `base` at its beginning."""

    def __init__(self, values: Numbers, base: int) -> None:
        self.count = len(values)
        self.sums = np.zeros(self.count + 1, dtype=np.uint64)
        np.cumsum(values * _powers(base, self.count)[: self.count], out=self.sums[1:])
        self.inverse = _powers(pow(base, -1, 1 << 64), self.count)


def _rows(words: _Sums, length: int) -> Numbers:
    """A hash of every `length` words in a row."""
    count = words.count - length + 1
    return (words.sums[length:] - words.sums[:count]) * words.inverse[:count]


_POWERS: dict[int, Numbers] = {}


def _powers(base: int, count: int) -> Numbers:
    """base^0, base^1, … modulo 2^64, at least one."""
    known = _POWERS.get(base)
    if known is None or len(known) < count:
        steps = np.full(max(1, 2 * count), base, dtype=np.uint64)
        steps[0] = 1
        known = _POWERS[base] = np.cumprod(steps, dtype=np.uint64)
    return known[: max(1, count)]


def _mixed(values: Numbers) -> Numbers:
    """Every bit of a value spread over all (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
