"""What the rules share that judge a document by its text alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, ClassVar

from pydantic import Field

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.operations import DocumentOperation
from davinci.data.tally import Tally

Share = Annotated[float, Field(ge=0, le=1)]


class DocumentRule(DocumentOperation):
    """A document stays as it is or goes for one reason."""

    level: ClassVar[Level] = "L2"

    @abstractmethod
    def reason(self, document: Document) -> str | None:
        """Why the document goes; None where it stays."""

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        reason = self.reason(document)
        if reason is None:
            return (document,)
        tally.drop(document, reason)
        return ()
