"""Rows with named fields as documents: what JSONL, Parquet and Hugging Face datasets have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from davinci.config import Positive
from davinci.data.documents import Document
from davinci.data.operations import Reader
from davinci.data.tally import Tally


class RowReader(Reader):
    """`text` is the field of a document's text. Others are optional: `id` (default: where the row stands), `group`
    (rows that agree in it are held out together; default: the id), `question` (it asks what the text answers: the
    document is both, a line each), `origin` (copied to the document's origin: url, date, licence, …).

    A row without text is counted as empty; one whose text has more than `largest` bytes is dropped.
    """

    neutral: ClassVar[frozenset[str]] = frozenset({"part_bytes"})
    text: str = "text"
    id: str | None = None
    group: str | None = None
    question: str | None = None
    origin: tuple[str, ...] = ()
    largest: Positive = 1 << 30
    part_bytes: Positive = 128 << 20

    @property
    def fields(self) -> list[str]:
        """The fields that are read."""
        single = (self.text, self.id, self.group, self.question)
        return list(dict.fromkeys(name for name in (*single, *self.origin) if name is not None))

    def document(
        self,
        row: Any,
        place: str,
        where: Mapping[str, str | int],
        tally: Tally,
        found: Callable[[], str] | None = None,
    ) -> Document | None:
        """The document of a row at `place`; `where` goes into its origin. None after counting why there is none, with
        the place where people find it (`found`, if that is another)."""
        problem = self._problem(row)
        if problem:
            tally.unreadable(found() if found else place, problem, str(row))
            return None
        text, question = row[self.text], row[self.question] if self.question else None
        if not text or not text.strip():
            tally.count("empty rows")
            return None
        identity = place if self.id is None else str(row[self.id])
        key = identity if self.group is None else str(row[self.group])
        asks = f"{question.rstrip()}\n" if question and question.strip() else ""
        document = Document(identity, key, asks + text, asks, origin={**where, **self._origin(row)})
        if len(text) * 4 > self.largest and len(text.encode("utf-8", "replace")) > self.largest:
            tally.drop(document, f"larger than {self.largest} bytes")
            return None
        return document

    def _problem(self, row: Any) -> str:
        """Why a row is no document."""
        if not isinstance(row, Mapping):
            return "no object with fields"
        for name in self.fields:
            if name not in row:
                return f"no field {name}"
        for said in (self.text, self.question):
            if said is not None and not isinstance(row[said], str | None):
                return f"field {said} is no text"
        return ""

    def _origin(self, row: Mapping[str, Any]) -> dict[str, str | int]:
        found = {name: row[name] for name in self.origin if row[name] is not None}
        return {name: value if isinstance(value, int | str) else str(value) for name, value in found.items()}
