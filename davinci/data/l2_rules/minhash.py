"""MinHash signatures of texts (Broder 1997) over n-grams of words.

Texts, n-grams and hash functions are those of datatrove (and, but for the words, of FineWeb: arXiv 2406.17557, section
3.4), so that the same documents fall into the same buckets.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import regex
import xxhash

from davinci.data.l2_rules.words import SIGNS, words_of
from davinci.data.long_texts import stretches

Integers = npt.NDArray[np.uint64]

_PRIME = np.uint64((1 << 61) - 1)
_BITS = np.uint64(61)
_SEED = 1
_BLOCK = 512  # n-grams at a time: what is computed of them stays in the processor's cache
_NUMBER = regex.compile(r"\p{Nd}+(?:[.,،٫⎖⎗⎘]\p{Nd}+)?")
_BLANKS = str.maketrans(SIGNS, " " * len(SIGNS))
_MARK = regex.compile(r"\p{Mn}+")


def signature(text: str, n: int, hashes: int) -> Integers | None:
    """The least hash of the text's n-grams of words under each hash function, uint64[hashes]; None without n-grams."""
    factors, terms = _functions(hashes)
    least = None
    for hashed in _grams(text, n):
        least = np.full(hashes, _PRIME) if least is None else least
        for begin in range(0, len(hashed), _BLOCK):
            values = hashed[begin : begin + _BLOCK, None] * factors
            values += terms
            # Modulo 2**61 - 1; of equals the least is the same whether the prime itself counts as 0 or not, but for 0.
            high = values >> _BITS
            values &= _PRIME
            values += high
            values[values >= _PRIME] -= _PRIME
            np.minimum(least, values.min(axis=0), out=least)
    return least


def _grams(text: str, n: int) -> Iterator[Integers]:
    """Hashes of a text's n-grams of words, some at a time where it is long."""
    words: list[str] = []
    for stretch in stretches(text):
        words += words_of(simplified(stretch))
        if len(words) >= n:
            grams = map(" ".join, zip(*(words[first:] for first in range(n)), strict=False))
            yield np.fromiter(map(xxhash.xxh64_intdigest, map(str.encode, grams)), np.uint64, len(words) - n + 1)
            del words[: len(words) - n + 1]  # those of n-grams that go on


def simplified(text: str) -> str:
    """Lower case, numbers as 0, without punctuation, accents and repeated white space."""
    text = _NUMBER.sub("0", text.lower()).translate(_BLANKS)
    text = " ".join(text.split())
    return text if text.isascii() else _MARK.sub("", unicodedata.normalize("NFD", text)).strip()


@functools.cache
def _functions(hashes: int) -> tuple[Integers, Integers]:
    """Factors and terms of the hash functions, uint64[hashes] each."""
    generator = np.random.RandomState(_SEED)
    factors = generator.randint(1, int(_PRIME), dtype=np.uint64, size=hashes)
    return factors, generator.randint(0, int(_PRIME), dtype=np.uint64, size=hashes)
