"""Runs operations on documents in memory, a source cut into parts as a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davinci.data.documents import Document
from davinci.data.operations import CorpusOperation, Operation, Places, StreamOperation
from davinci.data.tally import Tally


def documents(*texts: str, name: str = "d", **origin: Any) -> list[Document]:
    return [Document(f"{name}{index}", f"{name}{index}", text, origin=origin) for index, text in enumerate(texts)]


@dataclass
class SmallCorpus:
    sources: Mapping[str, list[list[Document]]]

    @property
    def domains(self) -> dict[str, str]:
        return dict.fromkeys(self.sources, "general")

    def map(self, survey: Callable[[Iterator[Document]], Any]) -> dict[str, list[Any]]:
        return {name: [survey(iter(part)) for part in parts] for name, parts in self.sources.items()}


def places(folder: Path) -> Places:
    for name in ("step", "cache", "archives"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Places(folder / "step", folder / "cache", folder / "archives", folder)


def run_one(
    operation: StreamOperation, some: Sequence[Document], folder: Path = Path()
) -> tuple[list[Document], Tally]:
    tally = Tally()
    return list(operation.run(iter(some), tally, Places(folder, folder, folder, folder))), tally


def run_corpus(
    operation: CorpusOperation, sources: Mapping[str, list[list[Document]]], folder: Path
) -> tuple[dict[str, list[Document]], Tally]:
    """What stays of each source."""
    where = places(folder)
    operation.prepare(SmallCorpus(sources), where)
    tally = Tally()
    kept = {
        name: [one for part in parts for one in operation.run(iter(part), tally, where, name)]
        for name, parts in sources.items()
    }
    return kept, tally


def texts(operation: Operation, *given: str) -> list[str]:
    """What becomes of texts under an operation on documents."""
    assert isinstance(operation, StreamOperation)
    return [one.text for one in run_one(operation, documents(*given))[0]]
