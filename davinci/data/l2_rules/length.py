"""Documents that are too short or too long."""

from __future__ import annotations

from davinci.config.base import NotNegative
from davinci.data.documents import Document
from davinci.data.l2_rules.document_rule import DocumentRule
from davinci.data.l2_rules.words import words_in
from davinci.data.operations import operation


@operation("length")
class Length(DocumentRule):
    """Bounds in characters (Unicode code points) and in words (punctuation marks are words); without a bound, any."""

    min_characters: NotNegative = 0
    max_characters: NotNegative | None = None
    min_words: NotNegative = 0
    max_words: NotNegative | None = None

    def reason(self, document: Document) -> str | None:
        if not self.min_characters <= len(document.text):
            return "too few characters"
        if self.max_characters is not None and len(document.text) > self.max_characters:
            return "too many characters"
        if self.min_words or self.max_words is not None:
            words = sum(map(len, words_in(document.text)))
            if words < self.min_words:
                return "too few words"
            if self.max_words is not None and words > self.max_words:
                return "too many words"
        return None
