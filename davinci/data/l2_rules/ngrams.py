"""How often a text says the same words again: counts of its n-grams, exact but for hashing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Grams = npt.NDArray[np.uint64]

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that nothing of a word is lost when the next one joins it


class WordGrams:
    """The n-grams of a text's words.

    A word is its hash of 64 bits: two n-grams of a text are taken for one in one of 10**11 texts of 10,000 words.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = np.fromiter(map(hash, words), np.int64, len(words)).astype(np.uint64)
        self._lengths = np.fromiter(map(len, words), np.int64, len(words))
        self._ends = np.concatenate([[0], np.cumsum(self._lengths)])
        self._last = 1, self._words

    def commonest_exceeds(self, n: int, share: float, size: int) -> bool:
        """Whether the commonest n-gram, all its times together and with blanks between its words, has more than that
        share of `size` characters. Of equally common ones the first counts."""
        if len(self._words) < n:
            return False
        ordered = np.sort(self._of(n))
        begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        counts = np.diff(begins, append=len(ordered))
        most = int(counts.max())
        if most * (self._longest(n) + n - 1) / size <= share:
            return False
        first = int(np.flatnonzero(np.isin(self._of(n), ordered[begins[counts == most]]))[0])
        return bool(most * int(self._ends[first + n] - self._ends[first] + n - 1) / size > share)

    def covered(self, n: int) -> int:
        """No fewer than the characters of the words that are in an n-gram which stood before."""
        if len(self._words) < n:
            return 0
        ordered = np.sort(self._of(n))
        again = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
        return min(again * self._longest(n), int(self._ends[-1]))

    def repeated(self, n: int) -> int:
        """Characters of the n-grams that stood before, from left to right, none of them counted twice."""
        grams, ends = (self._of(n).tolist() if len(self._words) >= n else []), self._ends.tolist()
        seen: set[int] = set()
        characters = at = 0
        while at < len(grams):
            if grams[at] in seen:
                characters += ends[at + n] - ends[at]
                at += n
            else:
                seen.add(grams[at])
                at += 1
        return characters

    def _of(self, n: int) -> Grams:
        """Each n-gram as a number, uint64[words - n + 1]. Only those asked for last are kept: a text may be long."""
        length, grams = self._last if self._last[0] <= n else (1, self._words)
        for longer in range(length + 1, n + 1):
            grams = grams[:-1] * _FACTOR + self._words[longer - 1 :]
        self._last = n, grams
        return grams

    def _longest(self, n: int) -> int:
        """Characters of the longest n-gram."""
        return int((self._ends[n:] - self._ends[:-n]).max())
