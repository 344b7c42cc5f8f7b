"""Makes the documents of a pool's sources at the depths asked for, from whatever is already kept.

The documents of a part are kept where a depth ends and before an operation that looks at a whole corpus, under the key
of what they are a function of (`davinci.data.keys`). A pass takes a part from the last place it is kept at as far as it
can go; where it needs what a corpus operation decides, that is prepared once every part that it looks at has arrived.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from davinci.config import Level
from davinci.data.document_files import read_documents
from davinci.data.documents import Document
from davinci.data.keys import Keys, digest
from davinci.data.operations import CorpusOperation, Operation, Places
from davinci.data.passes import IdSum, Pass, is_done, read_ids, read_tallies, run_pass, survey_part
from davinci.data.pool_files import Chain
from davinci.data.reporting import Report
from davinci.data.tally import UNREADABLE, Tally
from davinci.data.workers import Workers
from davinci.errors import UserError
from davinci.store import checked_name, read_json

Result = TypeVar("Result")
_SHOWN = 3  # places of what could not be read, of each problem; the card has some more


class Making:
    """The documents between the steps of a pool's chains, kept in one folder."""

    def __init__(self, chains: Mapping[str, Chain], folder: Path, places: Places, strict: bool = False) -> None:
        self.chains = chains
        self.keys = Keys(chains)
        self._folder = folder
        self._places = places
        self._strict = strict

    def files(self, source: str, position: int) -> list[Path]:
        """Where the documents of each part are kept after the operation at `position`."""
        folder = self._folder / "parts" / checked_name(source, "source")
        return [folder / f"{key[:32]}.parquet" for key in self.keys.of_parts(source, position)]

    def step(self, source: str, position: int) -> Path:
        """The folder of what the operation at `position` decided."""
        operation = self.chains[source].operations[position]
        is_corpus = isinstance(operation, CorpusOperation)
        key = self.keys.of_corpus(source, position) if is_corpus else digest(operation.described())
        return self._folder / "steps" / f"{_file_name(operation)}-{key[:16]}"

    def documents(self, source: str, depth: Level) -> Iterator[Document]:
        """The documents of a source at a depth, in the order in which they are stored."""
        for path in self.files(source, self.chains[source].ends[depth]):
            yield from read_documents(path)

    def tallies(self, source: str, depth: Level) -> list[Tally]:
        """What each operation up to a depth did, all parts together."""
        parts = [read_tallies(path) for path in self.files(source, self.chains[source].ends[depth])]
        return [Tally().merge(steps) for steps in zip(*parts, strict=True)]

    def documents_digest(self, source: str, depth: Level) -> str:
        """Of the set of ids of the documents at a depth."""
        total = IdSum(read_ids(path) for path in self.files(source, self.chains[source].ends[depth])).total
        return f"{total:064x}"

    def decided(self, source: str, position: int) -> dict[str, Any]:
        """What the operation at `position` reports of what it decided."""
        path = self.step(source, position) / "report.json"
        return dict(read_json(path)) if path.is_file() else {}

    def make(self, wanted: Mapping[str, set[int]], workers: Workers, report: Report) -> None:
        """Make the documents after the operations at the `wanted` positions of each source.

        Raises:
            UserError: a source holds nothing; under `strict`, something in it could not be read.
        """
        for name in wanted:
            if any(not is_done(path) for position in wanted[name] for path in self.files(name, position)):
                self.chains[name].reader.obtain(self._places, report.line)
        while needed := self._needed(wanted):
            passes = [one for name in needed for one in self._passes(name, needed[name])]
            if passes:
                passes.sort(key=lambda one: -int(one.part.get("bytes", 0)))
                sources = sorted({one.source for one in passes})
                title = ", ".join(sources) if len(sources) <= 3 else f"{len(sources)} sources"
                with report.bar(f"parts of {title}", len(passes)) as done:
                    workers.map(run_pass, [(one,) for one in passes], done)
            else:
                self._prepare(needed, workers, report)
        for name in wanted:
            self._check(name, report)

    def remove_stale(self) -> None:
        """Remove what no step of these chains, all of the pool's, is named after; also what a killed build left."""
        for folder in (self._folder / "parts").glob("*"):
            length = len(self.chains[folder.name].operations) if folder.name in self.chains else 0
            current = {path.stem for position in range(length) for path in self.files(folder.name, position)}
            for path in folder.glob("*"):
                if path.name.split(".")[0] not in current:
                    path.unlink(missing_ok=True)
        steps = {self.step(name, place) for name, one in self.chains.items() for place in range(len(one.operations))}
        for path in (self._folder / "steps").glob("*"):
            if path not in steps:
                shutil.rmtree(path, ignore_errors=True)

    def _needed(self, wanted: Mapping[str, set[int]]) -> dict[str, set[int]]:
        """Positions at which some part is missing: those wanted, and those that what leads there is decided on."""
        needed: dict[str, set[int]] = {}
        left = [(name, position) for name in wanted for position in wanted[name]]
        while left:
            name, position = left.pop()
            if position in needed.get(name, set()) or all(map(is_done, self.files(name, position))):
                continue
            needed.setdefault(name, set()).add(position)
            for place, operation in enumerate(self.chains[name].operations[: position + 1]):
                if isinstance(operation, CorpusOperation) and not self.step(name, place).is_dir():
                    left += self.keys.corpus(name, place).items()
        return needed

    def _passes(self, name: str, positions: set[int]) -> list[Pass]:
        """For each part, the way from where it is kept to the last of `positions` it can reach."""
        chain = self.chains[name]
        closed = [
            place
            for place, operation in enumerate(chain.operations)
            if isinstance(operation, CorpusOperation) and not self.step(name, place).is_dir()
        ]
        files = [self.files(name, position) for position in range(max(positions) + 1)]
        steps = tuple(self.step(name, place) for place in range(max(positions) + 1))
        passes = []
        for number, part in enumerate(chain.parts):
            missing = sorted(position for position in positions if not is_done(files[position][number]))
            if not missing:
                continue
            begin = max((place for place in range(missing[0]) if is_done(files[place][number])), default=-1)
            end = min((place for place in closed if place > begin), default=len(chain.operations))
            reached = [position for position in missing if position < end]
            if reached:
                way = slice(begin + 1, reached[-1] + 1)
                passes.append(
                    Pass(
                        source=name,
                        operations=chain.operations[way],
                        steps=steps[way],
                        begin=files[begin][number] if begin >= 0 else None,
                        part=part,
                        outputs={position - begin - 1: files[position][number] for position in reached},
                        places=self._places,
                        strict=self._strict,
                    )
                )
        return passes

    def _prepare(self, needed: Mapping[str, set[int]], workers: Workers, report: Report) -> None:
        """Let every corpus operation decide whose corpus is there."""
        for name in needed:
            for place, operation in enumerate(self.chains[name].operations[: max(needed[name]) + 1]):
                step = self.step(name, place)
                if not isinstance(operation, CorpusOperation) or step.is_dir():
                    continue
                corpus = _Corpus(self, self.keys.corpus(name, place), workers)
                if not corpus.is_there():
                    continue
                step.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=".", dir=step.parent) as temporary:
                    folder = Path(temporary) / "step"
                    folder.mkdir()
                    operation.prepare(corpus, replace(self._places, step=folder))
                    folder.rename(step)
                of = "the pool" if operation.pool_wide else name
                report.line(f"{operation.name} over {of}: decided ({report.since})")

    def _check(self, name: str, report: Report) -> None:
        """An empty source is a mistake; so is, under `strict`, what an earlier build that was not left out."""
        chain = self.chains[name]
        told = False
        for depth, position in sorted(chain.ends.items()):
            if not all(map(is_done, self.files(name, position))):
                continue
            tallies = self.tallies(name, depth)
            unread = {why: count for why, count in tallies[0].dropped.items() if why.startswith(UNREADABLE)}
            samples = tallies[0].to_json()["samples"]
            if self._strict and unread:
                raise UserError(f"{samples[min(unread)][0]['id']}: {min(unread).removeprefix(UNREADABLE)} (--strict)")
            for why, count in () if told else sorted(unread.items()):
                some = ", ".join(one["id"] for one in samples[why][:_SHOWN])
                more = f" and {count - _SHOWN:,} more" if count > _SHOWN else ""
                report.line(f"source {name}: not read: {why.removeprefix(UNREADABLE)}: {some}{more}")
            told = True
            if tallies[-1].documents_out == 0:
                raise UserError(f"source {name}: no documents at {depth}: {_where_lost(chain, tallies)}")


class _Corpus:
    """What `davinci.data.operations.Corpus` promises."""

    def __init__(self, making: Making, members: Mapping[str, int], workers: Workers) -> None:
        self.domains = {name: making.chains[name].domain for name in members}
        self.heldout_fractions = {name: making.chains[name].heldout_fraction for name in members}
        self._files = {name: making.files(name, position) for name, position in members.items()}
        self._workers = workers

    def is_there(self) -> bool:
        return all(is_done(path) for files in self._files.values() for path in files)

    def map(self, survey: Callable[..., Result], *of_source: Mapping[str, Any]) -> dict[str, list[Result]]:
        tasks = [
            (survey, path, *(values[name] for values in of_source))
            for name, files in self._files.items()
            for path in files
        ]
        results = iter(self._workers.map(survey_part, tasks))
        return {name: [next(results) for _ in files] for name, files in self._files.items()}


def _where_lost(chain: Chain, tallies: list[Tally]) -> str:
    counts = []
    for operation, tally in zip(chain.operations, tallies, strict=False):
        reasons = ", ".join(f"{why} {count:,}" for why, count in sorted(tally.dropped.items()))
        counts.append(f"{operation.name} left {tally.documents_out:,}" + (f" ({reasons})" if reasons else ""))
    return "; ".join(counts)


def _file_name(operation: Operation) -> str:
    return operation.name.rpartition(":")[2].replace("/", "_")
