"""Markdown to text with its structure."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.l1_normalisation.html import html_to_text
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


@operation("markdown_to_text")
class MarkdownToText(DocumentOperation):
    """CommonMark with tables and strikethrough, and the HTML in it, as the rendered page reads (see `html_to_text`).

    Formulas between dollar signs stay as they are.
    """

    level: ClassVar[Level] = "L1"

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        yield replace(document, text=html_to_text(_parser().render(document.text))[0])


@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])
