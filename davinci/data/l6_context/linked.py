"""Contextual completion: what a document points to, quoted in front of it."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from davinci.config.base import Positive
from davinci.data.documents import Document
from davinci.data.operations import Corpus, CorpusOperation, Places, operation
from davinci.data.tally import Tally
from davinci.store import read_json, write_json

# What points to another document: a Markdown link, an address, a wiki link, a dotted name; and lists after "See also".
_LINK = re.compile(r"\]\(([^)\s]+)\)|(https?://[^\s)>\]]+)|\[\[([^\]|]+)(?:\|[^\]]*)?\]\]|\b([A-Za-z_]\w*(?:\.\w+)+)\b")
_SEE_ALSO = re.compile(r"See also:?\s+([\w.(), \n]+)", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_SENTENCE_END = re.compile(r"[.!?:](?=\s|$)")


@dataclass(frozen=True)
class _Target:
    """A document that is pointed to, by which of its names, and what is quoted of it."""

    names: tuple[str, ...]
    id: str
    split_key: str
    excerpt: str


@operation("linked_context")
class LinkedContext(CorpusOperation):
    """Puts an excerpt of each document that a document points to in front of it, under the same id.

    A link is resolved inside the source: to the document with that id or address (``origin["url"]``), with that dotted
    name behind the last colon of its id, or the only one whose name ends so. Excerpts are quoted as they stand, cut at
    the end of a sentence. Held-out documents are quoted nowhere but in documents that are held out with them.
    """

    level = "L6"

    most: Positive = 2
    """Documents quoted in one."""
    excerpt: Positive = 400
    """Characters of each, at most."""

    def prepare(self, corpus: Corpus, places: Places) -> None:
        found = corpus.map(_pointed_to)
        wanted = frozenset(link for parts in found.values() for part in parts for link in part)
        for source, parts in corpus.map(functools.partial(_targets, wanted=wanted, length=self.excerpt)).items():
            targets = [target for part in parts for target in part]
            times = Counter(name for target in targets for name in target.names)
            links = {name: target.id for target in targets for name in target.names if times[name] == 1}
            reached = frozenset(links.values())
            texts = {target.id: [target.split_key, target.excerpt] for target in targets if target.id in reached}
            fraction = corpus.heldout_fractions[source]
            write_json(_index(places.step, source), {"links": links, "texts": texts, "heldout_fraction": fraction})

    def run(self, documents: Iterator[Document], tally: Tally, places: Places, source: str) -> Iterator[Document]:
        index = read_json(_index(places.step, source))
        for document in documents:
            quoted = [] if document.question else self._quoted(document, index, tally)
            tally.count("documents with context" if quoted else "documents without links")
            yield replace(document, text="\n\n".join([*quoted, document.text])) if quoted else document

    def _quoted(self, document: Document, index: dict[str, Any], tally: Tally) -> list[str]:
        chosen: dict[str, str] = {}
        for link in _links(document.text):
            target = index["links"].get(link, "")
            if not target or target == document.id or target in chosen:
                continue
            key, text = index["texts"][target]
            hidden = Document(target, key, "").is_heldout(index["heldout_fraction"])
            if hidden and key != document.split_key:
                tally.count("links to held-out documents")
                continue
            chosen[target] = f"Context, {link}: “{text}”"
            if len(chosen) == self.most:
                break
        tally.count("excerpts", len(chosen))
        return list(chosen.values())


def _index(step: Path, source: str) -> Path:
    return step / f"{source}.links.json"


def _links(text: str) -> list[str]:
    """What a text points to, in order, each once."""
    found = [next(group for group in match.groups() if group).rstrip(".,;:") for match in _LINK.finditer(text)]
    for listed in _SEE_ALSO.findall(text):
        found += _NAME.findall(listed)
    return list(dict.fromkeys(one.rstrip(".") for one in found))


def _pointed_to(documents: Iterator[Document]) -> set[str]:
    return {link for document in documents for link in _links(document.text)}


def _targets(documents: Iterator[Document], wanted: frozenset[str], length: int) -> list[_Target]:
    """The documents that are pointed to."""
    return [
        _Target(tuple(names), document.id, document.split_key, _cut(document.text, length))
        for document in documents
        if (names := sorted(_names(document) & wanted))
    ]


def _names(document: Document) -> set[str]:
    """Everything that points to a document."""
    dotted = document.id.rpartition(":")[2]
    ends = {dotted.split(".", cut)[-1] for cut in range(1, dotted.count(".") + 1)} if _NAME.fullmatch(dotted) else set()
    url = str(document.origin.get("url", ""))
    return {document.id, dotted, *ends, *([url] if url else [])}


def _cut(text: str, length: int) -> str:
    """The beginning of a text, on one line, to the end of a sentence where there is one."""
    flat = " ".join(text.split())
    if len(flat) <= length:
        return flat
    ends = [match.end() for match in _SENTENCE_END.finditer(flat[: length + 1]) if match.end() <= length]
    return flat[: ends[-1]] if ends else flat[:length].rpartition(" ")[0] + " …"
