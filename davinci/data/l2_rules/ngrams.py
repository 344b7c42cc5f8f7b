"""How often a text says the same words again: counts of its n-grams, exact but for hashing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Grams = npt.NDArray[np.uint64]

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that nothing of a word is lost when the next one joins it
_AT_ONCE = 1 << 20  # n-grams


class WordGrams:
    """The n-grams of a text's words, which come some at a time. Memory holds 12 bytes a word, and 8 more at work.

    A word is its hash of 64 bits: two n-grams of a text are taken for one in one of 10**11 texts of 10,000 words.
    """

    def __init__(self, words: Iterable[list[str]]) -> None:
        hashes, lengths = [], []
        for some in words:
            hashes.append(np.fromiter(map(hash, some), np.int64, len(some)).view(np.uint64))
            lengths.append(np.fromiter(map(len, some), np.uint32, len(some)))
        self._words = np.concatenate(hashes)
        del hashes
        kind = np.min_scalar_type(sum(int(one.sum()) for one in lengths))
        self._ends = np.zeros(len(self._words) + 1, dtype=kind)
        np.cumsum(np.concatenate(lengths), dtype=kind, out=self._ends[1:])

    def commonest_exceeds(self, n: int, share: float, size: int) -> bool:
        """Whether the commonest n-gram, all its times together and with blanks between its words, has more than that
        share of `size` characters. Of equally common ones the first counts."""
        if len(self._words) < n:
            return False
        longest = self._longest(n) + n - 1
        times = int(share * size / longest)
        while times * longest / size <= share:
            times += 1
        ordered = self._ordered(n)
        if times > len(ordered) or not (ordered[times - 1 :] == ordered[: len(ordered) - times + 1]).any():
            return False
        begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        counts = np.diff(begins, append=len(ordered))
        most = int(counts.max())
        first = int(np.flatnonzero(np.isin(self._of(n, 0, len(self._words)), ordered[begins[counts == most]]))[0])
        return bool(most * (int(self._ends[first + n] - self._ends[first]) + n - 1) / size > share)

    def covered(self, n: int) -> int:
        """No fewer than the characters of the words that are in an n-gram which stood before."""
        if len(self._words) < n:
            return 0
        ordered = self._ordered(n)
        again = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
        return min(again * self._longest(n), int(self._ends[-1]))

    def repeated_exceed(self, n: int, share: float, size: int) -> bool:
        """Whether the n-grams that stood before, from left to right and none of their words counted twice, have more
        than that share of `size` characters."""
        if len(self._words) < n:
            return False
        ordered = self._ordered(n)
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        del ordered
        if not len(again):
            return False
        again = again[np.concatenate([[True], again[1:] != again[:-1]])]
        seen = bytearray(len(again))
        characters = at = 0
        for begin in range(0, len(self._words) - n + 1, _AT_ONCE):
            grams = self._of(n, begin, begin + _AT_ONCE)
            which = np.minimum(np.searchsorted(again, grams), len(again) - 1)
            places = np.flatnonzero(again[which] == grams)
            sizes = self._ends[places + begin + n] - self._ends[places + begin]
            found = (places + begin).tolist(), which[places].tolist(), sizes.tolist()
            for place, one, length in zip(*found, strict=True):
                if place < at:
                    continue
                if seen[one]:
                    characters += length
                    at = place + n
                seen[one] = True
            if characters / size > share:
                return True
        return False

    def _ordered(self, n: int) -> Grams:
        """Every n-gram as a number, sorted, uint64[words - n + 1]."""
        grams = self._of(n, 0, len(self._words))
        grams.sort()
        return grams

    def _of(self, n: int, begin: int, end: int) -> Grams:
        """The n-grams that begin at the words from `begin` on, before `end`, as numbers, uint64[.]."""
        end = min(end, len(self._words) - n + 1)
        grams = self._words[begin:end].copy()
        for later in range(1, n):
            grams *= _FACTOR
            grams += self._words[begin + later : end + later]
        return grams

    def _longest(self, n: int) -> int:
        """Characters of the longest n-gram."""
        return int((self._ends[n:] - self._ends[:-n]).max())
