"""A document: the unit of extraction, filtering, splitting and sampling."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from davinci.data.long_texts import pieces


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


def size_of(text: str) -> int:
    """Bytes of a text in UTF-8."""
    if text.isascii():
        return len(text)
    return sum(len(piece.encode()) for piece in pieces(text))


def sound(one: Document) -> Document:
    """The document itself, or where it holds half a surrogate pair, which JSON and file names can spell and UTF-8
    cannot, the same with the replacement character there; two halves that meet become one character."""
    about = [text for pair in (*one.fields.items(), *one.origin.items()) for text in pair if isinstance(text, str)]
    if _fits(one.text) and _fits("".join((one.id, one.split_key, one.question, *about))):
        return one
    question = _whole(one.question)
    return replace(
        one,
        id=_whole(one.id),
        split_key=_whole(one.split_key),
        text=question + _whole(one.text.removeprefix(one.question)),
        question=question,
        fields=_sound(one.fields),
        origin=_sound(one.origin),
    )


def _sound(some: Mapping[str, str | int]) -> dict[str, str | int]:
    return {_whole(name): _whole(value) if isinstance(value, str) else value for name, value in some.items()}


def _fits(text: str) -> bool:
    """Whether UTF-8 can hold it."""
    try:
        size_of(text)
    except UnicodeEncodeError:
        return False
    return True


def _whole(text: str) -> str:
    return text if _fits(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
