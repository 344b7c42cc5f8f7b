"""C4's rules (Raffel et al., arXiv 1910.10683, section 2.2; and what its published code adds).

A word here is what stands between white space, as in the published code; sentences are counted as `words` counts them.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from davinci.config import Level
from davinci.config.base import NotNegative, Positive
from davinci.data.documents import Document
from davinci.data.l2_rules.document_rule import DocumentRule
from davinci.data.l2_rules.words import sentences_in
from davinci.data.long_texts import NEWLINE, stretches
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_ENDS = (".", "?", "!", '"', "'")
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


@operation("c4_quality")
class C4Quality(DocumentOperation):
    """Lines that are no sentences go; so does a document with *lorem ipsum*, a curly bracket, or too few sentences.

    What is left of a line has no blanks around it and none of Wikipedia's marks of citation. Lines that go are counted
    by their reason.
    """

    level: ClassVar[Level] = "L2"

    min_sentences: NotNegative = 5
    min_words_per_line: NotNegative = 3
    max_word_length: Positive = 1000
    """A line with a longer word goes (published code)."""
    terminal_punctuation: bool = True
    remove_citations: bool = True
    drop_lorem_ipsum: bool = True
    drop_curly_bracket: bool = True
    drop_javascript_lines: bool = True
    policy_phrases: tuple[str, ...] = POLICY
    """A line with one of these goes (published code)."""

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        left: list[str] = []
        sentences = 0
        for stretch in stretches(document.text, NEWLINE):
            kept: list[str] = []
            for line in stretch.splitlines():
                line, reason = self._line(line.strip())
                if reason is None:
                    kept.append(line)
                    if sentences < self.min_sentences:
                        sentences += sentences_in(line, self.min_sentences - sentences)
                elif reason in ("lorem ipsum", "curly bracket"):
                    tally.drop(document, reason)
                    return
                else:
                    tally.count(f"lines: {reason}")
            if kept:
                left.append("\n".join(kept))
        if sentences < self.min_sentences:
            tally.drop(document, "too few sentences")
            return
        text = "\n".join(left).strip()
        yield document if text == document.text else replace(document, text=text)

    def _line(self, line: str) -> tuple[str, str | None]:
        """What a line becomes, and why it goes."""
        words = line.split()
        if len(line) > self.max_word_length and max(map(len, words), default=0) > self.max_word_length:
            return line, "a word too long"
        if self.remove_citations and "[" in line:
            line = _CITATION.sub("", line)
        if self.terminal_punctuation and (not line.endswith(_ENDS) or line.endswith("...")):
            return line, "no terminal punctuation"
        if len(words) < self.min_words_per_line:
            return line, "too few words"
        lower = line.lower()
        if self.drop_lorem_ipsum and "lorem ipsum" in lower:
            return line, "lorem ipsum"
        if self.drop_javascript_lines and "javascript" in lower:
            return line, "javascript"
        if self.drop_curly_bracket and "{" in line:
            return line, "curly bracket"
        if any(phrase in lower for phrase in self.policy_phrases):
            return line, "policy"
        return line, None


@operation("c4_paragraphs")
class C4Paragraphs(DocumentRule):
    """Too few long lines (mC4: Xue et al., arXiv 2010.11934, section 3.1: three lines of 200 characters)."""

    min_paragraphs: Positive = 3
    min_characters: Positive = 200

    def reason(self, document: Document) -> str | None:
        longest = heapq.nlargest(self.min_paragraphs, map(len, document.text.split("\n")))
        is_long = len(longest) == self.min_paragraphs and longest[-1] >= self.min_characters
        return None if is_long else "too few paragraphs"
