"""A document: the unit of extraction, filtering, splitting and sampling."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a source.

    `id` is unique in the source and does not depend on content order. Documents with one `split_key` are held out
    together: everything drawn from one file of an archive, or everything that asks one problem. `question` is the
    prefix of `text` that asks (empty where nothing is asked); `fields` go to ``heldout.jsonl`` beside the text.
    `origin` says where it came from (file, line, url, licence, …): it stays with the document through a chain and is in
    no shard.
    """

    id: str
    split_key: str
    text: str
    question: str = ""
    fields: Mapping[str, str | int] = field(default_factory=dict)
    origin: Mapping[str, str | int] = field(default_factory=dict)

    def is_heldout(self, fraction: float) -> bool:
        """Whether this document belongs to the held-out split, of which `fraction` of all split keys are members."""
        return _place(self.split_key) < int(fraction * 2**64)


@functools.lru_cache(maxsize=1 << 16)
def _place(split_key: str) -> int:
    """Where a split key falls in range(2**64): decided by its name alone."""
    return int.from_bytes(hashlib.sha256(b"heldout\0" + split_key.encode()).digest()[:8], "big")
