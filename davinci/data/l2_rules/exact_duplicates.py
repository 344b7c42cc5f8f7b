"""Documents whose text another one has already."""

from __future__ import annotations

from typing import ClassVar

from davinci.data.documents import Document
from davinci.data.l2_rules.deduplication import KeyDeduplication
from davinci.data.operations import operation


@operation("exact_duplicates")
class ExactDuplicates(KeyDeduplication):
    """Of documents with one text the first stays."""

    reason: ClassVar[str] = "exact duplicate"

    def key(self, document: Document) -> str:
        return document.text
