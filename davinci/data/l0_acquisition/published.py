"""Text that whoever published it has brought to a Darwin Level: nothing is done to it here, the level is stated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally


class Published(DocumentOperation):
    """Leaves every document as it is. ``published_l3`` after a reader says that what was read is at Level 3."""

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        yield document


for _level in get_args(Level)[1:]:
    _about = {"level": _level, "__module__": __name__, "__doc__": Published.__doc__}
    operation(f"published_{_level.lower()}")(type(f"Published{_level}", (Published,), _about))
