"""Texts that may be very long: looked at some at a time, so that what is made of one never takes its size many times
over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

LONG = 1 << 22  # characters: the words and the lines of a longer text are not all held at once
BLANK, NEWLINE = re.compile(r"\s"), re.compile(r"\n")


def pieces(text: str) -> Iterator[str]:
    """What a text is copied in; cut anywhere."""
    return (text[begin : begin + LONG] for begin in range(0, len(text), LONG))


def stretches(text: str, seam: re.Pattern[str] = BLANK) -> Iterator[str]:
    """A text, or what a long one is cut into behind a match of `seam`, which no word (or line) reaches across."""
    begin = 0
    while len(text) - begin > LONG and (found := seam.search(text, begin + LONG)):
        yield text[begin : found.end()]
        begin = found.end()
    if begin < len(text) or not text:
        yield text[begin:]


def parts(text: str, between: re.Pattern[str], kept: Callable[[str], object] | None = None) -> list[str] | Parts:
    """What stands between the matches of `between`, as its `split` gives it; with `kept` what that is true of."""
    if len(text) > LONG:
        return Parts(text, between, kept)
    return between.split(text) if kept is None else [*filter(kept, between.split(text))]


class Parts:
    """The same of a long text: one part at a time, found anew whenever they are gone through."""

    def __init__(self, text: str, between: re.Pattern[str], kept: Callable[[str], object] | None) -> None:
        self._text, self._between, self._kept = text, between, kept

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[str]:
        return self._all() if self._kept is None else filter(self._kept, self._all())

    def _all(self) -> Iterator[str]:
        begin = 0
        for match in self._between.finditer(self._text):
            yield self._text[begin : match.start()]
            begin = match.end()
        yield self._text[begin:]
