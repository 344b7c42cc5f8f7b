"""FineWeb's own rules (Penedo et al., arXiv 2406.17557, section 3.6): lines that do not end, lists, repeated lines."""

from __future__ import annotations

from davinci.config.base import NotNegative, NotNegativeFloat
from davinci.data.documents import Document
from davinci.data.l2_rules.document_rule import DocumentRule, Share
from davinci.data.l2_rules.gopher import duplicates
from davinci.data.l2_rules.words import TERMINATORS, words_in
from davinci.data.long_texts import NEWLINE, parts
from davinci.data.operations import operation


@operation("fineweb_quality")
class FineWebQuality(DocumentRule):
    """Defaults: the paper's; the length of a short line and the share of line breaks are datatrove's."""

    min_punctuated_lines: Share = 0.12
    max_short_lines: Share = 0.67
    short_line: NotNegative = 30
    """Characters."""
    max_duplicate_line_characters: Share = 0.01
    max_line_breaks_per_word: NotNegativeFloat = 0.3

    def reason(self, document: Document) -> str | None:
        text = document.text
        lines = parts(text, NEWLINE, str.strip)
        count = len(lines)
        if not count:
            return "empty"
        if sum(TERMINATORS.match(line[-1]) is not None for line in lines) / count < self.min_punctuated_lines:
            return "too few lines end in punctuation"
        if sum(len(line) <= self.short_line for line in lines) / count > self.max_short_lines:
            return "too many short lines"
        characters = len(text) - text.count("\n")
        if duplicates(lines).again_characters / characters > self.max_duplicate_line_characters:
            return "characters in duplicate lines"
        if text.count("\n") / sum(map(len, words_in(text))) > self.max_line_breaks_per_word:
            return "too many line breaks"
        return None
