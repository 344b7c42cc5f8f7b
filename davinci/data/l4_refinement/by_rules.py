"""Refinement by rules: no model, the same on every machine, and checked like a model's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from davinci.data.documents import Document
from davinci.data.l4_refinement import technical_text
from davinci.data.l4_refinement.faithfulness import Limits, unfaithful
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally


@operation("refined_by_rules")
class RefinedByRules(DocumentOperation):
    """Scientific and technical text refined by rules, document by document, under the same id.

    References, debris and empty headings go; broken lines are joined; sections of names and their meanings become
    sentences; abbreviations and symbols are written out where that is certain. A text that then fails the check of
    faithfulness (against the original without what was taken out) stays as it was, or is dropped.
    """

    level = "L4"

    faithfulness: Limits = Limits(shortest=0.3, longest=2.0, missing_numbers=0.0, missing_words=1.0)
    on_failure: Literal["keep", "drop"] = "keep"

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        refined = technical_text.refine(document.text.removeprefix(document.question))
        reason = unfaithful(refined.kept, refined.text, self.faithfulness)
        if reason is not None:
            if self.on_failure == "drop":
                tally.drop(document, reason)
            else:
                tally.count(f"kept as they were: {reason}")
                yield document
            return
        text = document.question + refined.text
        tally.count("documents unchanged" if text == document.text else "documents refined")
        for what, number in refined.used.items():
            tally.count(what, number)
        yield replace(document, text=text)
