"""What a step of a chain did: documents in and out, every drop by its reason, with samples."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from davinci.data.documents import Document, sound
from davinci.errors import UserError

SAMPLES = 5  # of each reason
UNREADABLE = "unreadable: "  # begins the reason of what a reader could not read
_EXCERPT = 400  # characters of a sample


class Tally:
    """Counts of one step over one part; parts merge, in any order, to the same.

    `dropped` counts documents by reason, `counted` whatever else a step did (paragraphs trimmed, answers from the
    cache). The samples of a reason are those documents whose ids hash lowest: the same ones however a source was cut.
    Under `strict` the first thing that cannot be read ends the work.
    """

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self.documents_in = self.documents_out = self.bytes_in = self.bytes_out = 0
        self.dropped: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        self._samples: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}

    def drop(self, document: Document, reason: str) -> None:
        """A document goes."""
        document = sound(replace(document, text=document.text[:_EXCERPT], question=""))
        self.dropped[reason] += 1
        place = -int.from_bytes(hashlib.sha256(document.id.encode()).digest()[:8], "big")
        sample = {
            "id": document.id,
            "text": document.text,
            **({"origin": dict(document.origin)} if document.origin else {}),
        }
        self._keep(reason, (place, document.id, sample))

    def unreadable(self, place: str, problem: str, text: str = "") -> None:
        """Something at `place` (``file:line``) is no document; `text` is how it begins.

        Raises:
            UserError: under `strict`.
        """
        if self._strict:
            raise UserError(f"{place}: {problem} (--strict)")
        self.drop(Document(place, place, text), f"{UNREADABLE}{problem}")

    def count(self, what: str, number: int = 1) -> None:
        """Something else happened, `number` times."""
        self.counted[what] += number

    def merge(self, others: Iterable[Tally]) -> Tally:
        """Add what others counted; returns this one."""
        for other in others:
            self.documents_in += other.documents_in
            self.documents_out += other.documents_out
            self.bytes_in += other.bytes_in
            self.bytes_out += other.bytes_out
            self.dropped.update(other.dropped)
            self.counted.update(other.counted)
            for reason, samples in other._samples.items():
                for sample in samples:
                    self._keep(reason, sample)
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain data, in an order that does not depend on how parts were worked on."""
        return {
            "documents_in": self.documents_in,
            "documents": self.documents_out,
            "bytes_in": self.bytes_in,
            "bytes": self.bytes_out,
            "dropped": dict(sorted(self.dropped.items())),
            "counted": dict(sorted(self.counted.items())),
            "samples": {
                reason: [sample for _, _, sample in sorted(samples, key=lambda one: (-one[0], one[1]))]
                for reason, samples in sorted(self._samples.items())
            },
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tally:
        """What `to_json` gave."""
        tally = cls()
        tally.documents_in, tally.documents_out = data["documents_in"], data["documents"]
        tally.bytes_in, tally.bytes_out = data["bytes_in"], data["bytes"]
        tally.dropped.update(data["dropped"])
        tally.counted.update(data["counted"])
        for reason, samples in data["samples"].items():
            for sample in samples:
                place = -int.from_bytes(hashlib.sha256(sample["id"].encode()).digest()[:8], "big")
                tally._keep(reason, (place, sample["id"], sample))
        return tally

    def _keep(self, reason: str, sample: tuple[int, str, dict[str, Any]]) -> None:
        kept = self._samples.setdefault(reason, [])
        if not any(one[:2] == sample[:2] for one in kept):
            (heapq.heappush if len(kept) < SAMPLES else heapq.heappushpop)(kept, sample)
