"""What a chain is made of: operations, each tagged with its Darwin Level.

A source of a pool is a chain, a YAML list of operations in any order, any of them any number of times::

    chain:
      - jsonl: {paths: [corpus/*.jsonl.zst], text: body}   # L0: the first operation reads
      - html_to_text                                       # L1
      - language: {keep: [en]}                             # L2
      - near_duplicates: {threshold: 0.8}                  # L2, over the whole source
      - typical                                            # L3

The source at depth Lk is what the longest beginning of its chain gives that holds no operation above Lk. Operations are
pydantic models: their fields are their parameters. A name with a colon, ``package.module:Class``, is a user's own.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

from davinci.config import Level, parse
from davinci.config.base import Frozen
from davinci.data.documents import Document
from davinci.data.tally import Tally
from davinci.errors import UserError, nearest

Result = TypeVar("Result")
Kind = TypeVar("Kind", bound="type[Operation]")

# Where the operations of each level stand. Imported when a chain is read, so that planning imports none of them.
LEVELS: dict[Level, str] = {
    "L0": "davinci.data.l0_acquisition",
    "L1": "davinci.data.l1_normalisation",
    "L2": "davinci.data.l2_rules",
    "L3": "davinci.data.l3_model_filter",
    "L4": "davinci.data.l4_refinement",
    "L5": "davinci.data.l5_completion",
    "L6": "davinci.data.l6_context",
    "L7": "davinci.data.l7_execution",
}
_REGISTERED: dict[str, type[Operation]] = {}


class Operation(Frozen, ABC):
    """One step of a chain.

    `version` is bumped by hand when the output changes for equal parameters. `neutral` names parameters that do not
    decide the output (concurrency, an endpoint's address): they do not enter the digest of what was built.
    """

    name: ClassVar[str] = ""
    level: ClassVar[Level]
    version: ClassVar[int] = 1
    neutral: ClassVar[frozenset[str]] = frozenset()

    def located(self, places: Places) -> Self:
        """The operation with what its parameters name outside the pool found, and so described; most name nothing.

        Raises:
            UserError: it is not there.
        """
        return self

    def described(self) -> dict[str, Any]:
        """What decides the output, as plain data: name, version, level and parameters; of a user's own its code too."""
        parameters = self.model_dump(mode="json", exclude=set(self.neutral))
        known = {"operation": self.name, "level": self.level, "version": self.version, "parameters": parameters}
        return known | ({"code": _code_digest(type(self))} if ":" in self.name else {})


class Reader(Operation):
    """The first operation of a chain (L0, or of the level a generator's text has): where documents come from.

    A reader cuts what it reads into parts that workers read at the same time. A part is plain data (JSON), and parts
    come in the order in which documents are stored.
    """

    level: ClassVar[Level] = "L0"

    @abstractmethod
    def parts(self, places: Places) -> list[dict[str, Any]]:
        """The parts there are; each with what decides its content (a digest, or size and time of a file).

        Raises:
            UserError: there is nothing to read.
        """

    @abstractmethod
    def read(self, part: Mapping[str, Any], places: Places, tally: Tally) -> Iterator[Document]:
        """The documents of one part. What cannot be read is counted with `tally.unreadable`, with its place."""

    def obtain(self, places: Places, log: Callable[[str], None]) -> None:
        """Bring what is not on this machine yet; called before a part is read. Most readers have nothing to bring."""

    def licences(self, places: Places) -> dict[str, dict[str, str]]:
        """Licence files that come with what is read: ``{name: {file, sha256}}``; called after `obtain`."""
        return {}

    def provenance(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        """What the card says of where the text came from."""
        return {"parts": len(parts)}


class StreamOperation(Operation):
    """Takes the documents of a part one after another, or several at once (a model's batch, requests to a server), and
    keeps their order; parts of a source are worked on at the same time."""

    @abstractmethod
    def run(self, documents: Iterator[Document], tally: Tally, places: Places) -> Iterator[Document]:
        """What becomes of the documents of one part."""


class DocumentOperation(StreamOperation):
    """Looks at one document at a time; parts of a source are worked on at the same time.

    `apply` gives what becomes of a document: itself, another text under the same id (`dataclasses.replace`), several
    (ids of their own), or none, after `tally.drop(document, reason)`.
    """

    @abstractmethod
    def apply(self, document: Document, tally: Tally) -> Iterable[Document]: ...

    def run(self, documents: Iterator[Document], tally: Tally, places: Places) -> Iterator[Document]:
        for document in documents:
            made = [*self.apply(document, tally)]
            del document  # it may be very long, and what becomes of it goes a long way
            while made:
                yield made.pop(0)


class CorpusOperation(Operation):
    """Looks at all documents before it says what becomes of each: duplicates, a classifier trained on them.

    With `pool_wide` the corpus is that of every source of the pool whose chain holds this operation with these
    parameters, else of one source.
    """

    pool_wide: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, corpus: Corpus, places: Places) -> None:
        """Decide, and write what was decided into `places.step` (no pickles). Any number of passes over the corpus.

        What it writes as ``report.json`` there stands in the card beside the step's counts.
        """

    @abstractmethod
    def run(self, documents: Iterator[Document], tally: Tally, places: Places, source: str) -> Iterator[Document]:
        """What becomes of the documents of one part of `source`, by what `prepare` wrote."""


class Corpus(Protocol):
    """What a `CorpusOperation` decides on."""

    @property
    def domains(self) -> Mapping[str, str]:
        """Source to domain, in order of name."""

    @property
    def heldout_fractions(self) -> Mapping[str, float]:
        """Source to the fraction that `Document.is_heldout` takes: what is measured on is nobody's to learn from."""

    def map(self, survey: Callable[..., Result], *of_source: Mapping[str, Any]) -> dict[str, list[Result]]:
        """`survey` (picklable) of the documents of each part of each source, computed by worker processes, in order of
        part. Further arguments are what `of_source` hold for the source."""


@dataclass(frozen=True)
class Places:
    """Folders an operation may use: `step` belongs to this step of this build, `cache` outlives builds (answers by
    content), `archives` are the store's package archives, `root` is what relative paths of a pool file start from."""

    step: Path
    cache: Path
    archives: Path
    root: Path


def operation(name: str) -> Callable[[Kind], Kind]:
    """Register a class as the operation `name` of its level."""

    def register(kind: Kind) -> Kind:
        kind.name = name
        _REGISTERED[name] = kind
        return kind

    return register


@functools.cache
def registered() -> Mapping[str, type[Operation]]:
    """Every operation of this program by name, level after level: whatever stands in a module of a level's folder."""
    for name in LEVELS.values():
        folder = importlib.import_module(name)
        for module in pkgutil.iter_modules(folder.__path__, f"{name}."):
            importlib.import_module(module.name)
    return dict(sorted(_REGISTERED.items(), key=lambda item: (item[1].level, item[0])))


def read_chain(steps: Iterable[str | Mapping[str, Any]], where: str) -> list[Operation]:
    """A chain as written in a pool file: names, or one-key mappings of a name to its parameters.

    Args:
        steps: the list.
        where: file and key, for messages.

    Raises:
        UserError: unknown operation or parameter, a chain that does not begin with a reader, a reader later on.
    """
    chain = [_read_step(step, f"{where}[{index}]") for index, step in enumerate(steps)]
    for index, step in enumerate(chain):
        if isinstance(step, Reader) != (index == 0):
            accepted = [name for name, kind in registered().items() if issubclass(kind, Reader)]
            raise UserError(
                f"{where}[{index}]: {step.name} "
                + (
                    f"does not read; a chain begins with one of {', '.join(accepted)}"
                    if index == 0
                    else "can only be first"
                )
            )
    if not chain:
        raise UserError(f"{where}: an empty chain; it begins with an operation that reads")
    return chain


def _read_step(step: str | Mapping[str, Any], where: str) -> Operation:
    name: Any
    parameters: Mapping[str, Any] | None
    if isinstance(step, str):
        name, parameters = step, None
    elif isinstance(step, Mapping) and len(step) == 1:
        ((name, parameters),) = step.items()
    else:
        raise UserError(f"{where}: {step!r} is no operation; accepted are NAME and {{NAME: {{parameter: value}}}}")
    return parse(_find(str(name), where), parameters or {}, lambda key: f"{where}.{name}")


def _find(name: str, where: str) -> type[Operation]:
    if ":" in name:
        return _users_own(name, where)
    if name not in registered():
        raise UserError(f"{where}: unknown operation {name!r}" + nearest(name, registered()))
    return registered()[name]


def _users_own(name: str, where: str) -> type[Operation]:
    """The class that ``package.module:Class`` names."""
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{where}: {name} cannot be imported ({error})") from None
    if not (isinstance(kind, type) and issubclass(kind, Operation)) or not re.fullmatch(
        "L[0-9]", getattr(kind, "level", "")
    ):
        raise UserError(f"{where}: {name} is no Operation with a level of L0 to L9 (davinci.data.operations)")
    kind.name = name
    return kind


@functools.cache
def _code_digest(kind: type[Operation]) -> str:
    """Of the module that a user's own operation stands in, so that a change to it takes effect."""
    return hashlib.sha256(inspect.getsource(inspect.getmodule(kind) or kind).encode()).hexdigest()


def up_to(chain: list[Operation], depth: Level) -> list[Operation]:
    """The longest beginning of a chain without an operation above `depth`."""
    above = next((index for index, step in enumerate(chain) if step.level > depth), len(chain))
    return chain[:above]


def depths_of(chain: list[Operation]) -> list[Level]:
    """The depths at which a chain can be had, shallow to deep: every level at which one of its beginnings ends."""
    reached: list[Level] = []
    for step in chain:
        if not reached or step.level > reached[-1]:
            reached.append(step.level)
    return reached
