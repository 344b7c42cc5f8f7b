"""Filtering by a trained classifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator

from davinci.config.base import Frozen
from davinci.data.documents import Document
from davinci.data.l3_model_filter import classifier_model
from davinci.data.operations import Places, StreamOperation, operation
from davinci.data.ordered import together
from davinci.data.tally import Tally
from davinci.errors import UserError

_BATCH = 256  # documents at once
_BATCH_CHARACTERS = 16 << 20


class Threshold(Frozen):
    """What stays: documents whose calibrated probability of `label` is `at_least` so high."""

    label: str
    at_least: float = Field(default=0.5, ge=0, le=1)


@operation("classifier")
class ByClassifier(StreamOperation):
    """Keeps what a trained classifier takes for the label in `keep`.

    `model` is a folder that ``python -m davinci data train-classifier`` wrote; what decides the output is its content,
    not its place, and the card carries its report on held-out labels. With `note` the probability stays with each
    document's origin under that name, in thousandths.
    """

    level = "L3"
    neutral: ClassVar[frozenset[str]] = frozenset({"model"})

    model: str
    keep: Threshold
    note: str = ""

    @field_validator("keep", mode="before")
    @classmethod
    def _label_alone(cls, keep: Any) -> Any:
        return {"label": keep} if isinstance(keep, str) else keep

    def described(self) -> dict[str, Any]:
        folder = Path(self.model)
        classifier = classifier_model.load(folder)
        return {
            **super().described(),
            "classifier": classifier_model.digest_of(folder),
            "report": classifier.about.get("report"),
        }

    def located(self, places: Places) -> Self:
        folder = places.root / self.model
        self._column(classifier_model.load(folder))
        return self.model_copy(update={"model": str(folder)})

    def run(self, documents: Iterator[Document], tally: Tally, places: Places) -> Iterator[Document]:
        for batch in together(documents, lambda one: len(one.text), _BATCH_CHARACTERS, _BATCH):
            yield from self._judge(batch, tally)

    def _judge(self, batch: list[Document], tally: Tally) -> Iterator[Document]:
        classifier = classifier_model.load(Path(self.model))
        column = self._column(classifier)
        probabilities = classifier.probabilities([document.text for document in batch])
        for document, row in zip(batch, probabilities, strict=True):
            if row[column] < self.keep.at_least:
                likeliest = classifier.labels[int(row.argmax())]
                tally.drop(document, f"{self.keep.label} below {self.keep.at_least:g}, likeliest {likeliest}")
            elif self.note:
                yield replace(document, origin={**document.origin, self.note: round(1000 * float(row[column]))})
            else:
                yield document

    def _column(self, classifier: classifier_model.Classifier) -> int:
        if self.keep.label not in classifier.labels:
            raise UserError(
                f"classifier.keep: {self.model} has no label {self.keep.label!r}; it has {', '.join(classifier.labels)}"
            )
        return classifier.labels.index(self.keep.label)
