"""Plain text in one form: Unicode, newlines, blanks."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally


@operation("plain_text")
class PlainText(DocumentOperation):
    """`normalise`, for text and programs."""

    level: ClassVar[Level] = "L1"

    def apply(self, document: Document, tally: Tally) -> Iterator[Document]:
        yield replace(document, text=normalise(document.text))


@operation("records_to_text")
class RecordsToText(DocumentOperation):
    """A document of JSON lines becomes its id as a title and the `text` of its records, one after the other."""

    level: ClassVar[Level] = "L1"
    text: str = "text"

    def apply(self, document: Document, tally: Tally) -> Iterator[Document]:
        said = " ".join(json.loads(line)[self.text].strip() for line in document.text.splitlines())
        yield replace(document, text=normalise(f"{document.id}\n\n{said}"))


def normalise(text: str) -> str:
    """NFC, newlines as ``\\n``, no byte-order mark, no control characters but tab and newline, no trailing blanks."""
    text = unicodedata.normalize("NFC", text.removeprefix("\ufeff")).replace("\r\n", "\n").replace("\r", "\n")
    text = text.replace("\u00a0", " ")
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n") + "\n"
