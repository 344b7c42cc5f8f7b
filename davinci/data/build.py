"""Builds a pool in the store: documents by its chains, tokenizer, shards, card.

Every part and step is written in one piece and named by what it is a function of, so that a build that was interrupted,
or whose pool file or inputs changed, does only what is left to do. Equal inputs give equal shards, whatever the number
of workers.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from davinci.config import Level, Licence, parse
from davinci.data.cards import TokenizerCard, measured_level, read_card
from davinci.data.checksums import RECORD, changed
from davinci.data.documents import Document
from davinci.data.keys import digest
from davinci.data.making import Making
from davinci.data.operations import Places
from davinci.data.pool_files import Chain, PoolFile
from davinci.data.reporting import Log, Report
from davinci.data.token_files import read_tokens_from
from davinci.data.tokenizer import END_OF_TEXT
from davinci.data.tokenizer_choice import bring, card_of, key_of
from davinci.data.tokenizer_training import train
from davinci.data.variants import TokenVariant, Variant
from davinci.data.workers import Workers, workers
from davinci.errors import UserError, nearest
from davinci.store import Store, file_digest, read_json, write_json

VERSION = 1  # of what is written for equal documents
_LARGE = 256 << 20  # bytes of documents, compressed, that more than one process encodes


@dataclass(frozen=True)
class Request:
    """What of a pool to build (empty: all of its sources, all of their depths), with how many processes (0: one a
    core). `strict` ends at the first thing that cannot be read."""

    depths: Sequence[Level] = ()
    sources: Sequence[str] = ()
    workers: int = 0
    strict: bool = False


def build(file: PoolFile, store: Store, log: Log, request: Request | None = None) -> None:
    """Build a pool in the store, or see that it is there; `log` gets a line a step.

    Raises:
        UserError: a mistake in the pool's file; an input that is missing, damaged or empty.
    """
    _Build(file, store, Report(log), request or Request()).run()


class _Build:
    def __init__(self, file: PoolFile, store: Store, report: Report, request: Request) -> None:
        self._file, self._pool, self._store, self._report, self._request = file, file.pool, store, report, request
        self._folder = store.pool(self._pool.name)
        asked = self._asked()
        if request.workers < 0:
            raise UserError(f"--workers {request.workers}: a number from 1 on, or 0 for one a core")
        places = Places(self._folder, store.cache, store.archives, file.root)
        # All sources: a tokenizer, or a filter over the whole pool, is a function of those not asked for too.
        self._chains = file.chains([name for name, one in self._pool.sources.items() if not one.tokens_from], places)
        self._places = places
        self._making = Making(self._chains, self._folder / "build", places, request.strict)
        self._variants = {place: self._variant(*place) for place in asked}

    def run(self) -> None:
        self._forget_damaged()
        if self._is_current() and not self._request.strict:
            self._report.line(f"pool {self._pool.name} is there: {self._folder}")
            return
        self._store.require_writable()
        asked = dict.fromkeys(name for name, _ in self._variants)
        for name in asked:
            if name in self._chains:
                self._chains[name].reader.obtain(self._places, self._report.line)
        licences = {name: self._licence(name) for name in asked}
        with workers(self._request.workers or len(os.sched_getaffinity(0))) as hands:
            wanted: dict[str, set[int]] = {}
            for name, depth in self._variants:
                if name in self._chains:
                    wanted.setdefault(name, set()).add(self._chains[name].ends[depth])
            if self._trains and not self._has_tokenizer():
                for name, chain in self._chains.items():
                    wanted.setdefault(name, set()).add(chain.ends[_measured(chain)])
            self._making.make(wanted, hands, self._report)
            tokenizer = self._tokenizer()
            self._write_variants(tokenizer, hands)
        self._write_card(tokenizer, licences)
        self._making.remove_stale()
        self._report.line(f"pool {self._pool.name} built in {self._report.since}: {self._folder}")

    def _forget_damaged(self) -> None:
        """What is no longer what was written counts as not written."""
        for one in self._variants.values():
            lines = [*changed(one.folder)]
            for line in lines:
                self._report.line(f"{line}; made again")
            if lines:
                self._store.require_writable()
                (one.folder / RECORD).unlink()

    @property
    def _trains(self) -> bool:
        """Whether the tokenizer is trained on the pool itself."""
        return self._pool.tokenizer == self._pool.name

    def _asked(self) -> list[tuple[str, Level]]:
        """The sources and depths to build."""
        sources, depths = self._pool.sources, self._request.depths
        for name in self._request.sources:
            if name not in sources:
                raise UserError(f"--source {name}: pool {self._pool.name} has no such source" + nearest(name, sources))
        chosen = self._request.sources or list(sources)
        held = sorted({depth for name in chosen for depth in sources[name].depths})
        for depth in depths:
            if depth not in held:
                raise UserError(f"--depth {depth.lower()}: pool {self._pool.name} holds {', '.join(held).lower()}")
        return [(name, depth) for name in chosen for depth in sources[name].depths if not depths or depth in depths]

    def _variant(self, name: str, depth: Level) -> Variant | TokenVariant:
        source = self._pool.sources[name]
        if source.tokens_from:
            where = f"{self._file.path}: sources.{name}.tokens_from.{depth}"
            tokens, fraction = read_tokens_from(source.tokens_from[depth], where), source.heldout_fraction
            return TokenVariant(self._folder / f"{name}@{depth}", tokens, self._file.root, fraction, where)
        chain = self._chains[name]
        files = self._making.files(name, chain.ends[depth])
        key = digest([VERSION, [one.name for one in files], chain.heldout_fraction])
        return Variant(self._folder / f"{name}@{depth}", tuple(files), chain.heldout_fraction, key)

    def _is_current(self) -> bool:
        """Whether everything asked for is written, and in the card."""
        try:
            card = read_card(self._store, self._pool.name)
        except UserError:  # damaged, or of another version
            return False
        if card is None or card.tokenizer != self._known_tokenizer():
            return False
        listed = {(name, depth): one for name, source in card.sources.items() for depth, one in source.variants.items()}
        return all(
            place in listed and one.read(card.tokenizer) == listed[place] for place, one in self._variants.items()
        )

    # The tokenizer.

    def _tokenizer_key(self) -> str:
        """What the tokenizer is a function of."""
        if not self._trains:
            return key_of(self._pool.tokenizer, self._places, f"{self._file.path}: tokenizer")
        if not self._chains:
            raise UserError(
                f"{self._file.path}: tokenizer: {self._pool.tokenizer} would be trained on the pool, which has no "
                "text; name the one that its tokens were written with"
            )
        texts = [
            [name, chain.domain, chain.heldout_fraction, self._making.keys.of_parts(name, chain.ends[_measured(chain)])]
            for name, chain in self._chains.items()
        ]
        return digest([VERSION, self._pool.vocab_size, importlib.metadata.version("tokenizers"), texts])

    def _has_tokenizer(self) -> bool:
        return self._known_tokenizer() is not None

    def _known_tokenizer(self) -> TokenizerCard | None:
        """The card of the tokenizer that is there, if it is this pool's."""
        record, path = self._folder / "tokenizer.recipe.json", self._folder / "tokenizer.json"
        if not (record.is_file() and path.is_file()):
            return None
        said = read_json(record)
        if said.get("key") != self._tokenizer_key() or "card" not in said:
            return None
        card = parse(TokenizerCard, said["card"], where=lambda key: str(record))
        if card.digest != file_digest(path):
            return None
        self._require_room(card)
        return card

    def _require_room(self, card: TokenizerCard) -> None:
        if card.vocab_size > self._pool.vocab_size:
            raise UserError(
                f"{self._file.path}: vocab_size: {self._pool.vocab_size} is smaller than the {card.vocab_size} of "
                f"tokenizer {self._pool.tokenizer}"
            )

    def _tokenizer(self) -> TokenizerCard:
        """Train the tokenizer on the training documents of the level that is measured, or take the one named."""
        known = self._known_tokenizer()
        if known is not None:
            return known
        path, where = self._folder / "tokenizer.json", f"{self._file.path}: tokenizer"
        if self._trains:
            documents: dict[str, list[Any]] = {}
            for name, chain in self._chains.items():
                documents.setdefault(chain.domain, []).append(self._training_documents(name, chain))
            train({domain: itertools.chain(*some) for domain, some in documents.items()}, self._pool.vocab_size, path)
            self._report.line(f"tokenizer of {self._pool.vocab_size:,} tokens trained ({self._report.since})")
            card = card_of(path, END_OF_TEXT, where)
        else:
            card = bring(self._pool.tokenizer, self._folder, self._places, self._report.line, where)
        self._require_room(card)
        write_json(self._folder / "tokenizer.recipe.json", {"key": self._tokenizer_key(), "card": card.model_dump()})
        return card

    def _training_documents(self, name: str, chain: Chain) -> Iterator[Document]:
        fraction = chain.heldout_fraction
        return (one for one in self._making.documents(name, _measured(chain)) if not one.is_heldout(fraction))

    # Shards and card.

    def _write_variants(self, tokenizer: TokenizerCard, hands: Workers) -> None:
        """Write the shards that are not there: small ones at the same time, a large one with all hands."""
        left = {place: one for place, one in self._variants.items() if one.read(tokenizer) is None}
        large = [place for place, one in left.items() if one.size >= _LARGE]
        small: dict[str, list[tuple[str, Level]]] = {}
        for place in left.keys() - set(large):
            small.setdefault(place[0], []).append(place)
        # Depths in order: they share most of their documents, which the process then encodes once.
        tasks = [[(left[place], tokenizer, *self._known(*place), 1) for place in sorted(one)] for one in small.values()]
        tasks.sort(key=lambda task: -sum(one.size for one, *_ in task))
        if left:
            with self._report.bar("sources tokenised", len(tasks) + len(large)) as done:
                hands.map(_write, [(task,) for task in tasks], done)
                for place in large:
                    left[place].write(tokenizer, *self._known(*place), hands.count)
                    done()
        for one in left.values():
            card = one.read(tokenizer)
            assert card is not None  # just written
            self._report.line(f"{one.folder.name}: {card.documents:,} documents, {card.tokens:,} tokens")

    def _known(self, name: str, depth: Level) -> tuple[list[dict[str, Any]], str | None]:
        """What the card says of a depth beside its sizes: the operations that lead to it, each with what it did, and
        which documents it holds."""
        if name not in self._chains:
            return [{"operation": "tokens_from", "level": depth, "parameters": self._tokens_from(name)[depth]}], None
        steps = []
        for place, tally in enumerate(self._making.tallies(name, depth)):
            step = self._chains[name].operations[place].described() | tally.to_json()
            report = self._making.decided(name, place)
            steps.append(step | ({"report": report} if report else {}))
        return steps, self._making.documents_digest(name, depth)

    def _write_card(self, tokenizer: TokenizerCard, licences: dict[str, dict[str, Any]]) -> None:
        """The card of all that is there now, whatever this build was asked for."""
        before = {}
        if (self._folder / "card.json").is_file():
            before = read_json(self._folder / "card.json")["sources"]
        sources = {}
        for name, source in self._pool.sources.items():
            found = {depth: self._variant(name, depth).read(tokenizer) for depth in source.depths}
            variants = {depth: card.model_dump(mode="json") for depth, card in found.items() if card is not None}
            if variants:
                provenance = self._provenance(name)
                sources[name] = {
                    "domain": source.domain,
                    "licence": licences[name] if name in licences else before[name]["licence"],
                    "archive": provenance.pop("archive", {}),
                    "provenance": provenance,
                    "variants": variants,
                }
        card = {"name": self._pool.name, "tokenizer": tokenizer.model_dump(), "sources": sources}
        write_json(self._folder / "card.json", card)

    def _tokens_from(self, name: str) -> dict[Level, dict[str, Any]]:
        return self._pool.sources[name].tokens_from

    def _provenance(self, name: str) -> dict[str, Any]:
        if name not in self._chains:
            return {"tokens_from": self._tokens_from(name)}
        chain = self._chains[name]
        return {"reader": chain.reader.described(), **chain.reader.provenance(list(chain.parts))}

    def _licence(self, name: str) -> dict[str, Any]:
        """What the card says of a source's licence; its files are there, or the text cannot be used."""
        stated = self._pool.sources[name].licence or Licence(spdx="NOASSERTION", note="no licence is stated")
        files = dict(self._chains[name].reader.licences(self._places)) if name in self._chains else {}
        for one in stated.files:
            path = self._file.root / one
            if not path.is_file():
                raise UserError(f"{self._file.path}: sources.{name}.licence.files: no file {path}")
            files[one] = {"file": one, "sha256": file_digest(path)}
        return {"spdx": stated.spdx, "note": stated.note, "files": files}


def _write(task: list[tuple[Variant | TokenVariant, TokenizerCard, list[dict[str, Any]], str | None, int]]) -> None:
    for one, tokenizer, steps, documents, count in task:
        one.write(tokenizer, steps, documents, count)


def _measured(chain: Chain) -> Level:
    return measured_level(chain.ends)  # type: ignore[return-value]
