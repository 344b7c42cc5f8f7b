"""What a worker process does: one pass over one part, through operations that follow one another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from davinci.data.document_files import read_documents, write_part
from davinci.data.documents import Document, size_of, sound
from davinci.data.operations import CorpusOperation, Operation, Places, Reader, StreamOperation
from davinci.data.tally import Tally
from davinci.errors import UserError
from davinci.store import read_json, write_json

Result = TypeVar("Result")


@dataclass(frozen=True)
class Pass:
    """One part's way through `operations`.

    `begin` is where its documents are kept (None: the first operation reads `part`); `steps` are the folders of what
    each operation decided; `outputs` says after which operations (by index) the documents are kept, and where.
    """

    source: str
    operations: tuple[Operation, ...]
    steps: tuple[Path, ...]
    begin: Path | None
    part: dict[str, Any]
    outputs: dict[int, Path]
    places: Places
    strict: bool


def run_pass(work: Pass) -> None:
    """Do it. What is kept is written in one step each; beside it the tallies of every operation so far and `IdSum`.

    Raises:
        UserError: naming the source.
    """
    try:
        _run_pass(work)
    except UserError as error:
        raise UserError(f"source {work.source}: {error}") from None


def _run_pass(work: Pass) -> None:
    tallies = read_tallies(work.begin) if work.begin is not None else []
    before = len(tallies)
    taps: list[Iterator[Document]] = []
    sums: dict[int, IdSum] = {}
    with ExitStack() as files:
        stream = read_documents(work.begin) if work.begin is not None else iter(())
        for index, (operation, step) in enumerate(zip(work.operations, work.steps, strict=True)):
            tally = Tally(work.strict)
            tallies.append(tally)
            stream = _run(operation, stream, tally, replace(work.places, step=step), work)
            keep: list[Callable[[Document], None]] = []
            if index in work.outputs:
                sums[index] = IdSum()
                keep = [files.enter_context(write_part(work.outputs[index])).add, sums[index].add]
            stream = _leaving(stream, tally, keep)
            taps.append(stream)
        for tap in (taps[-1], *taps[:-1]):  # an operation may leave some of its input: what is kept is kept whole
            for _ in tap:
                pass
    for index, path in work.outputs.items():
        done = tallies[: before + index + 1]
        write_json(_record(path), {"steps": [one.to_json() for one in done], "ids": str(sums[index].total)})


def _run(
    operation: Operation, stream: Iterator[Document], tally: Tally, places: Places, work: Pass
) -> Iterator[Document]:
    match operation:
        case Reader():
            return operation.read(work.part, places, tally)
        case StreamOperation():
            return operation.run(_entering(stream, tally), tally, places)
        case CorpusOperation():
            return operation.run(_entering(stream, tally), tally, places, work.source)
    raise UserError(f"source {work.source}: {operation.name} is neither a reader nor works on documents or a corpus")


def _entering(stream: Iterator[Document], tally: Tally) -> Iterator[Document]:
    for one in stream:
        tally.documents_in += 1
        tally.bytes_in += size_of(one.text)
        box = [one]
        del one
        yield box.pop()


def _leaving(stream: Iterator[Document], tally: Tally, keep: list[Callable[[Document], None]]) -> Iterator[Document]:
    """Whatever a reader or an operation gives is text that UTF-8 can hold from here on.

    A document may be very long: no step keeps hold of one that has gone on to the next.
    """
    for given in stream:
        one = sound(given)
        if one is not given:
            tally.count("documents with half a surrogate pair")
        tally.documents_out += 1
        tally.bytes_out += size_of(one.text)
        for call in keep:
            call(one)
        box = [one]
        del given, one
        yield box.pop()


class IdSum:
    """A digest of a set of documents' ids that parts have apart and the whole has together: the sum of their SHA-256,
    modulo 2^256."""

    def __init__(self, parts: Iterable[int] = ()) -> None:
        self.total = sum(parts) % 2**256

    def add(self, one: Document) -> None:
        self.total = (self.total + int.from_bytes(hashlib.sha256(one.id.encode()).digest(), "big")) % 2**256


def is_done(path: Path) -> bool:
    """Whether a part's documents are kept at `path`, whole."""
    return path.is_file() and _record(path).is_file()


def read_tallies(path: Path) -> list[Tally]:
    """Of every operation up to the one whose documents are kept at `path`."""
    return [Tally.from_json(one) for one in read_json(_record(path))["steps"]]


def read_ids(path: Path) -> int:
    """The sum over the ids of the documents that are kept at `path`."""
    return int(read_json(_record(path))["ids"])


def survey_part(survey: Callable[..., Result], path: Path, *of_source: Any) -> Result:
    """What a corpus operation's survey says of one part."""
    return survey(read_documents(path), *of_source)


def _record(path: Path) -> Path:
    return path.with_suffix(".json")
