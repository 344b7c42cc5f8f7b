"""Rows of words in text: which of those wanted stand in it, and where.

A word is a run of letters, digits and underscores, lower case (ASCII). Where `marks` count, every mark of punctuation
is a word of its own, since in code and formulas it carries the meaning; else they are left out. Words and rows of them
are compared by 64-bit polynomial hashes: of 10^8 rows, none is taken for another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

Gram = tuple[bytes, ...]
Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_WORD = re.compile(rb"[a-z0-9_\x80-\xff]+")
_WORD_OR_MARK = re.compile(_WORD.pattern + rb"|[^\sa-z0-9_\x80-\xff]")
_BASE, _STEP = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_BITS = 20
_NONE = np.zeros(0, dtype=np.int64)


def words(text: bytes, marks: bool) -> list[bytes]:
    """The words of a text in UTF-8."""
    return (_WORD_OR_MARK if marks else _WORD).findall(text.lower())


class Grams:
    """Rows of words that are looked for, by their hashes: `numbers` of them, length after length, hash after hash.

    Args:
        rows: length of a row -> hashes of rows of that length (`row_hashes`), in any order.
        marks: whether marks of punctuation are words.
    """

    def __init__(self, rows: Mapping[int, Numbers], marks: bool) -> None:
        self._marks = marks
        # Most rows are none of those wanted: a bit map says so faster than a search.
        self._maps: dict[int, tuple[int, Numbers, npt.NDArray[np.bool_], np.uint64]] = {}
        self.count = 0
        for length, hashes in sorted(rows.items()):
            known = np.unique(hashes)
            shift = np.uint64(64 - max(_BITS, len(known).bit_length() + 4))
            bits = np.zeros(1 << (64 - int(shift)), dtype=np.bool_)
            bits[known >> shift] = True
            self._maps[length] = self.count, known, bits, shift
            self.count += len(known)

    def numbers(self, length: int, hashes: Numbers) -> Places:
        """The numbers of rows that are looked for, by length and hash."""
        first, known, *_ = self._maps[length]
        return first + np.searchsorted(known, hashes).astype(np.int64)

    def find(self, text: Bytes) -> tuple[Places, Places, Places]:
        """Every place of a text, uint8[n] of UTF-8, where a row stands: the row's number, and the bytes at which it
        begins and ends (int64[k] each), row length after row length."""
        hashes, begins, ends = _hashes(text, self._marks)
        sums = _Sums(hashes, _BASE)
        found = [(_NONE, _NONE, _NONE)]
        for length, (first, known, bits, shift) in self._maps.items():
            if sums.count < length:
                continue
            rows = _rows(sums, length)
            likely = np.flatnonzero(bits[rows >> shift])
            places = np.minimum(np.searchsorted(known, rows[likely]), len(known) - 1)
            there = known[places] == rows[likely]
            at = likely[there]
            found.append((first + places[there], begins[at], ends[at + length - 1] + 1))
        numbers, begin, end = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return numbers, begin, end


def row_hashes(text: Bytes, lengths: Iterable[int], marks: bool) -> tuple[dict[int, Numbers], Places]:
    """For each of `lengths` a hash of every row of so many words of a text (uint64[words - length + 1]), and the bytes
    at which its words begin (int64[words])."""
    hashes, begins, _ = _hashes(text, marks)
    sums = _Sums(hashes, _BASE)
    return {length: _rows(sums, length) for length in lengths if length <= sums.count}, begins


def contained(wanted: Iterable[Gram], some: Iterable[Bytes]) -> set[Gram]:
    """Those of the rows of words and marks that stand in a row in one of the texts, each uint8[n] of UTF-8."""
    rows: dict[int, list[Gram]] = {}
    for row in sorted(set(wanted), key=len):
        rows.setdefault(len(row), []).append(row)
    hashes = {
        length: row_hashes(_joined(alike), [length], marks=True)[0][length][::length] for length, alike in rows.items()
    }
    grams = Grams(hashes, marks=True)
    found = np.zeros(grams.count, dtype=np.bool_)
    for text in some:
        found[grams.find(text)[0]] = True
    return {
        row
        for length, alike in rows.items()
        for row, there in zip(alike, found[grams.numbers(length, hashes[length])].tolist(), strict=True)
        if there
    }


def _joined(rows: Iterable[Gram]) -> Bytes:
    return np.frombuffer(b" ".join(word for row in rows for word in row), dtype=np.uint8)


def _kinds() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Of each byte: 0 blank, 1 a mark, 2 part of a word; and its lower case."""
    kinds = np.ones(256, dtype=np.uint8)
    kinds[[*range(0x09, 0x0E), 0x20]] = 0
    kinds[[*range(0x30, 0x3A), *range(0x41, 0x5B), 0x5F, *range(0x61, 0x7B), *range(0x80, 0x100)]] = 2
    lower = np.arange(256, dtype=np.uint8)
    lower[0x41:0x5B] += 32
    return kinds, lower


_KINDS, _LOWER = _kinds()


def _hashes(text: Bytes, marks: bool) -> tuple[Numbers, Places, Places]:
    """A hash of each word of a text, uint64[words], and the places of its first and its last byte."""
    kinds = _KINDS[text]
    inside = kinds == 2
    begins = (kinds == 1) & marks
    begins[inside & ~np.concatenate(([False], inside[:-1]))] = True
    ends = (kinds == 1) & marks
    ends[inside & ~np.concatenate((inside[1:], [False]))] = True
    first, last = np.flatnonzero(begins), np.flatnonzero(ends)
    letters = _Sums(_LOWER[text].astype(np.uint64), _STEP)
    return _mixed((letters.sums[last + 1] - letters.sums[first]) * letters.inverse[first]), first, last


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
