"""Refinement by a language model, checked for faithfulness."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from davinci.data.documents import Document
from davinci.data.l4_refinement.faithfulness import Limits, unfaithful
from davinci.data.llm.operation import AsksModel
from davinci.data.operations import operation
from davinci.data.tally import Tally


@operation("refined_by_llm")
class RefinedByLlm(AsksModel):
    """Each document rewritten by a model, under its id; an answer that is not faithful is not accepted."""

    level = "L4"

    faithfulness: Limits = Limits()

    def reject(self, document: Document, answer: str) -> str | None:
        return unfaithful(document.text, answer, self.faithfulness)

    def accept(self, document: Document, answers: list[str], tally: Tally) -> Iterable[Document]:
        text = answers[0] + "\n"
        if text == document.text:
            tally.count("documents unchanged")
        yield replace(document, text=text)
