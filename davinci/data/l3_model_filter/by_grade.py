"""Filtering by grades that a language model gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from davinci.config.base import NotNegativeFloat, Positive
from davinci.data.documents import Document
from davinci.data.llm.operation import AsksModel
from davinci.data.operations import operation
from davinci.data.tally import Tally


@operation("graded_by_llm")
class GradedByLlm(AsksModel):
    """Asks a model for a grade by the prompt's rubric and keeps documents graded `keep` or higher (0 keeps all).

    The grade stays with the document's origin as ``grade``. A document whose grade cannot be read is counted; it stays
    or goes as `on_failure` says.
    """

    level = "L3"

    prompt: str = "educational_value"
    keep: NotNegativeFloat = 0.0
    max_tokens: Positive = 200

    def reject(self, document: Document, answer: str) -> str | None:
        try:
            float(answer)
        except ValueError:
            return "no number"
        return None

    def accept(self, document: Document, answers: list[str], tally: Tally) -> Iterable[Document]:
        grade = float(answers[0])
        tally.count(f"graded {grade:g}")
        if grade < self.keep:
            tally.drop(document, f"grade below {self.keep:g}")
        else:
            yield replace(document, origin={**document.origin, "grade": f"{grade:g}"})
