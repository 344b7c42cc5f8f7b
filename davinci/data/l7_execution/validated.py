"""Items that were run, and gave what they say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Literal

from davinci.config.base import Positive, PositiveFloat
from davinci.data.documents import Document
from davinci.data.operations import Places, StreamOperation, operation
from davinci.data.ordered import in_order
from davinci.data.tally import Tally
from davinci.data.verification import runs_as_written, sessions


@operation("validated_by_running")
class ValidatedByRunning(StreamOperation):
    """Keeps documents whose interpreter sessions give what they say, or whose programs pass their assertions.

    Each runs in the sandbox, in a process without network and files (`davinci.sandbox`). What a document needs must be
    installed here, so what this level holds depends on the machine's packages. `isolation` ``best_effort`` runs them
    also where they cannot be confined. Documents without anything to run go too, unless `without` says ``keep``.
    """

    level = "L7"

    seconds: PositiveFloat = 5.0
    least: Positive = 1
    """Results that a session must state."""
    without: Literal["keep", "drop"] = "drop"
    isolation: Literal["isolated", "best_effort"] = "isolated"

    def run(self, documents: Iterator[Document], tally: Tally, places: Places) -> Iterator[Document]:
        for document, fault in in_order(self._fault, documents, len(os.sched_getaffinity(0))):
            yield from self._conclude(document, fault, tally)

    def _fault(self, document: Document) -> str | None:
        if self.without == "keep" and not sessions(document.text):
            return None
        return runs_as_written(
            document.text,
            setting="validated_by_running.isolation",
            seconds=self.seconds,
            isolation=self.isolation,
            least=self.least,
        )

    def _conclude(self, document: Document, fault: str | None, tally: Tally) -> Iterable[Document]:
        if fault is None:
            yield document
        else:
            tally.drop(document, fault)
