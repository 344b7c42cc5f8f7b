"""Words and addresses that a user does not want; no list comes with the program."""

from __future__ import annotations

import functools
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from davinci.config.base import Positive
from davinci.data.documents import Document
from davinci.data.l2_rules.document_rule import DocumentRule
from davinci.data.operations import operation


@operation("blocked_words")
class BlockedWords(DocumentRule):
    """A document with `occurrences` of the listed words or phrases goes, whatever their case.

    C4's rule for its list of bad words (arXiv 1910.10683, section 2.2) drops at the first. A word counts where no
    letter or digit touches it; with `inside` also inside of others, for scripts without blanks.
    """

    words: Annotated[tuple[str, ...], Field(min_length=1)]
    occurrences: Positive = 1
    inside: bool = False

    def reason(self, document: Document) -> str | None:
        found = _pattern(self.words, self.inside).finditer(document.text.lower())
        return (
            "blocked word"
            if sum(1 for _, _ in zip(found, range(self.occurrences), strict=False)) >= self.occurrences
            else None
        )


@operation("blocked_urls")
class BlockedUrls(DocumentRule):
    """A document from a listed host (or one below it) or with a listed word in its address (``origin["url"]``) goes."""

    hosts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def reason(self, document: Document) -> str | None:
        url = str(document.origin.get("url", "")).lower()
        if not url:
            return None
        try:
            host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
        except ValueError:
            return "address unreadable"
        labels = host.split(".")
        if not _lowered(self.hosts).isdisjoint(".".join(labels[first:]) for first in range(len(labels))):
            return "blocked host"
        return "blocked word in address" if self.words and _pattern(self.words, False).search(url) else None


@functools.cache
def _lowered(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(str.lower, words))


@functools.cache
def _pattern(words: tuple[str, ...], inside: bool) -> re.Pattern[str]:
    either = "|".join(map(re.escape, sorted(_lowered(words), key=len, reverse=True)))
    return re.compile(either if inside else rf"(?<![^\W_])(?:{either})(?![^\W_])")
