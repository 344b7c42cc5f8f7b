"""What a classifier sees of texts: hashed words, signs and pairs of neighbours, counted.

They are those of scikit-learn's ``HashingVectorizer`` (lower case, pairs joined by a blank, no alternate signs, rows of
length 1), bit for bit; here many texts are one array of bytes, and every word of them is hashed at the same time.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from davinci.data.ordered import together

if TYPE_CHECKING:
    from scipy.sparse import csr_array

FEATURES = 2**18
LONGEST = 100_000  # characters of a document that are looked at
_AT_ONCE = 1 << 17  # characters: what is made of them stays in a processor's cache
_BLANK, _SIGN, _WORD, _DIGIT = range(4)
_MANY = 255  # bytes: what is longer is hashed by itself

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint32]


def features(texts: Sequence[str]) -> csr_array:
    """Rows of hashed words, signs and pairs of neighbours, of length 1 (float64[texts, features], sparse).

    A word is a run of letters, digits and underscores; a digit counts as 0.
    """
    from scipy.sparse import csr_array

    parts = [_counted(some) for some in together([text[:LONGEST] for text in texts], len, _AT_ONCE)]
    counts, columns, sizes = (np.concatenate(one) for one in zip((_NONE, _NONE, _NONE), *parts, strict=True))
    rows = np.repeat(np.arange(len(texts)), sizes)
    values = counts / np.sqrt(np.bincount(rows, counts * counts, len(texts)))[rows]
    ends = np.concatenate(([0], np.cumsum(sizes)))
    return csr_array((values, columns, ends), shape=(len(texts), FEATURES))


_NONE: Integers = np.zeros(0, dtype=np.int64)


def _counted(texts: Sequence[str]) -> tuple[Integers, Integers, Integers]:
    """How often a feature is in a text and which one it is, text after text, and how many features each has."""
    text = "\n".join((*texts, "")).lower()
    # İ is two characters in lower case: then each text is measured.
    lengths = [len(one) for one in texts]
    if sum(lengths) + len(texts) != len(text):
        lengths = [len(one.lower()) for one in texts]
    words = _Words(text)
    of = np.searchsorted(np.cumsum(np.array(lengths) + 1), words.places, side="right") << 18
    keys = np.concatenate((of | words.single(), (of[:-1] | words.pairs())[of[1:] == of[:-1]]))
    if len(texts) < 1 << 13:
        keys = keys.astype(np.uint32)  # sorted twice as fast
    keys.sort()
    begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)])
    found = keys[begins].astype(np.int64)
    return (
        np.diff(begins, append=len(keys)),
        found & (FEATURES - 1),
        np.bincount(found >> 18, minlength=len(texts)),
    )


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    """What each character is, uint8[code points]."""
    kinds = np.full(sys.maxunicode + 1, _SIGN, dtype=np.uint8)
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    for kind, pattern in ((_BLANK, r"\s+"), (_WORD, r"\w+"), (_DIGIT, r"\d+")):
        for run in re.finditer(pattern, characters):
            kinds[run.start() : run.end()] = kind
    return kinds


class _Words:
    """The words and signs of a text, which stand in `_text`, uint8[n] of UTF-8, with one blank between them.

    `places` are the characters of the text at which they begin.
    """

    def __init__(self, text: str) -> None:
        if text.isascii():
            codes: npt.NDArray[Any] = np.frombuffer(text.encode("ascii"), np.uint8)
        else:  # half a surrogate pair is taken for a question mark
            codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
        kinds = _kinds()[codes]
        codes = np.where(kinds == _DIGIT, codes.dtype.type(ord("0")), codes)
        inside = kinds >= _WORD
        begins = inside | (kinds == _SIGN)
        kept = np.flatnonzero(begins)
        begins[1:] &= ~(inside[1:] & inside[:-1])
        self.places = np.flatnonzero(begins)
        # A blank before each word, and enough of them at the end to read four bytes anywhere.
        at = np.cumsum(begins, dtype=np.int32)[kept] + np.arange(len(kept), dtype=np.int32)
        laid = np.full(len(kept) + len(self.places) + 8, ord(" "), dtype=codes.dtype)
        laid[at] = codes[kept]
        self._begins = np.flatnonzero(begins[kept]) + np.arange(1, len(self.places) + 1)
        ends = np.append(self._begins[1:] - 1, len(kept) + len(self.places))[: len(self.places)]
        if laid.dtype != np.uint8:
            widths = 1 + (laid > 0x7F).astype(np.int64) + (laid > 0x7FF) + (laid > 0xFFFF)
            first = np.cumsum(widths) - widths
            self._begins, ends = first[self._begins], first[ends]
            laid = np.frombuffer(laid.tobytes().decode("utf-32-le").encode(), np.uint8)
        self._text = laid
        self._lengths = ends - self._begins
        wide = laid.astype(np.uint32)
        # The four bytes from each byte on, as they are and as MurmurHash3 takes them in.
        self._fours: Hashes = np.bitwise_or.reduce(
            [wide[at : len(wide) - 3 + at] << np.uint32(8 * at) for at in range(4)]
        )
        self._blocks = _scrambled(self._fours)
        whole = np.where(self._lengths <= _MANY, self._lengths >> 2, 0)
        self._hashed = whole, self._taken_in(np.zeros(len(whole), dtype=np.uint32), 0 * whole, whole)

    def single(self) -> Integers:
        """The feature of each word, int64[words]."""
        return self._finished(self._hashed[1], self._lengths)

    def pairs(self) -> Integers:
        """The feature of each word and the one after it, int64[words - 1]."""
        lengths = self._lengths[:-1] + 1 + self._lengths[1:]
        known, hashes = self._hashed[0][:-1], self._hashed[1][:-1]
        return self._finished(self._taken_in(hashes, known, np.where(lengths <= _MANY, lengths >> 2, known)), lengths)

    def _taken_in(self, hashes: Hashes, begin: Integers, end: Integers) -> Hashes:
        """MurmurHash3's state of each word after blocks `begin` to `end` of four bytes."""
        count = end - begin
        order = np.argsort((_MANY - count).astype(np.uint8), kind="stable")  # those of most blocks first
        states, at = hashes[order], (self._begins[: len(count)] + 4 * begin)[order]
        for left in (len(count) - np.cumsum(np.bincount(count))[:-1]).tolist():
            states[:left] = _rotated(states[:left] ^ self._blocks[at[:left]], 13) * np.uint32(5) + np.uint32(0xE6546B64)
            at[:left] += 4
        back = np.empty_like(states)
        back[order] = states
        return back

    def _finished(self, states: Hashes, lengths: Integers) -> Integers:
        """The features of states that all whole blocks of four bytes are in."""
        begins = self._begins[: len(lengths)]
        rest = self._fours[begins + (lengths & ~3)] & _MASKS[lengths & 3]
        states = states ^ _scrambled(rest) ^ lengths.astype(np.uint32)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            states = (states ^ states >> np.uint32(shift)) * np.uint32(factor)
        signed = (states ^ states >> np.uint32(16)).view(np.int32).astype(np.int64)
        for place in np.flatnonzero(lengths > _MANY):
            signed[place] = _hash(self._text[begins[place] : begins[place] + lengths[place]].tobytes())
        return np.abs(signed) & (FEATURES - 1)


_MASKS: Hashes = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF], dtype=np.uint32)


def _scrambled(fours: Hashes) -> Hashes:
    return _rotated(fours * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _rotated(values: Hashes, by: int) -> Hashes:
    return values << np.uint32(by) | values >> np.uint32(32 - by)


def _hash(word: bytes) -> int:
    from sklearn.utils import murmurhash3_32

    return int(murmurhash3_32(word))
