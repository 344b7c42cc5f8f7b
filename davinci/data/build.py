"""Builds a pool: archives -> documents at each Darwin Level -> tokenizer -> shards -> card.

Deterministic: two builds anywhere have the same digests. Resumable: a source that is already there, made from the same
recipe, is kept; each folder and file appears in one rename. Offline once the archives are in the store.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from davinci.data import embedded, model_filter
from davinci.data.archives import Archive, obtain
from davinci.data.cards import TokenizerCard, measured_level, read_card
from davinci.data.documents import Document
from davinci.data.embedded import Licence, Recipe, Source
from davinci.data.rules import clean
from davinci.errors import UserError, nearest
from davinci.store import Store, file_digest, read_json, write_json

BUILDERS: dict[str, Callable[[], Recipe]] = {"embedded": embedded.recipe}
Log = Callable[[str], None]
_WORKERS = 2
# The modules whose text decides what a pool holds: a change to one of them makes a built pool stale.
_RECIPE_FILES = (
    *("archives.txt", "arithmetic.py", "documents.py", "embedded.py", "extraction.py", "markup.py"),
    *(
        "model_filter.py",
        "python_source.py",
        "questions.py",
        "rules.py",
        "tokenizer.py",
        "tokenizer_training.py",
        "writing.py",
    ),
)


def build(pool: str, store: Store, log: Log) -> None:
    """Build `pool` in the store, or see that it is there; `log` gets a line a step.

    Raises:
        UserError: the program cannot make this pool, or an archive cannot be had.
    """
    if pool not in BUILDERS:
        raise UserError(f"pool {pool!r} cannot be built here" + nearest(pool, BUILDERS))
    build_recipe(BUILDERS[pool](), store, log)


def build_recipe(recipe: Recipe, store: Store, log: Log, workers: int = _WORKERS) -> None:
    """Build the pool that `recipe` describes, with up to `workers` processes."""
    folder = store.pool(recipe.name)
    key = _recipe_key()
    if is_current(recipe, store, key):
        log(f"pool {recipe.name} is there: {folder}")
        return
    store.require_writable()
    start = time.monotonic()
    archives = obtain(list(recipe.pins), store, log)
    log(f"{len(archives)} archives verified; reading their text")
    made, licences = _make_documents(recipe, archives, workers)
    log(f"{sum(len(one) for part in made.values() for one in part.documents.values()):,} documents ({_since(start)})")
    told = _filter_by_model(recipe, made)
    log(f"domains told apart on documents the model has not seen: {told} ({_since(start)})")
    tokenizer = _tokenizer(recipe, folder, key, made)
    tokenizer_card = TokenizerCard(
        file=tokenizer.name, digest=file_digest(tokenizer), vocab_size=recipe.vocab_size, end_of_text=0
    )
    log(f"tokenizer of {recipe.vocab_size} tokens trained ({_since(start)})")
    cards = {
        name: {
            "domain": source.domain,
            "licence": _source_licence(source, licences),
            "archive": {one: _archive_card(archives[one]) for one in source.archives},
            "variants": _variants(
                name, source, folder, tokenizer_card, f"{key} {tokenizer_card.digest}", made[name], log
            ),
        }
        for name, source in recipe.sources.items()
    }
    whole = {"name": recipe.name, "tokenizer": tokenizer_card.model_dump(), "sources": cards}
    write_json(folder / "card.json", whole)
    write_json(folder / "recipe.json", {"key": key})
    log(f"pool {recipe.name} built in {_since(start)}: {folder}")


def is_current(recipe: Recipe, store: Store, key: str) -> bool:
    """Whether the pool in the store was made by this recipe and all its shard files have their size."""
    folder = store.pool(recipe.name)
    if not (folder / "recipe.json").is_file() or read_json(folder / "recipe.json") != {"key": key}:
        return False
    try:
        card = read_card(store, recipe.name)
    except UserError:  # damaged
        return False
    if card is None or not (folder / card.tokenizer.file).is_file() or set(card.sources) != set(recipe.sources):
        return False
    sizes = {
        folder / f"{name}@{depth}" / file: 2 * tokens
        for name, source in card.sources.items()
        for depth, one in source.variants.items()
        for file, tokens in (("train.bin", one.tokens), ("heldout.bin", one.heldout_tokens))
    }
    return all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())


@dataclass
class Made:
    """A source's documents by depth, how many its rules dropped for each reason, and what the model says of it."""

    documents: dict[str, list[Document]]
    dropped: Counter[str] = field(default_factory=Counter)
    judged: dict[str, Any] = field(default_factory=dict)


def _make_documents(
    recipe: Recipe, archives: dict[str, Archive], workers: int
) -> tuple[dict[str, Made], dict[str, dict[str, str]]]:
    """Documents of every source and the licence of every archive; archives are read in parallel."""
    tasks = {
        name: (
            archives[name],
            recipe.licences[name],
            [(one, source) for one, source in recipe.sources.items() if name in source.archives],
        )
        for name in sorted(archives, key=lambda name: -archives[name].path.stat().st_size)
    }
    parts: dict[str, tuple[dict[str, Made], dict[str, str]]] = {}
    if workers > 1 and len(archives) > 1:
        # Not forked: a tokenizer's threads may be running in this process.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(archives)), mp_context=context) as pool:
            running = {name: pool.submit(_read_archive, *task) for name, task in tasks.items()}
            parts = {name: future.result() for name, future in running.items()}
    else:
        parts = {name: _read_archive(*task) for name, task in tasks.items()}
    made: dict[str, Made] = {}
    for name, source in recipe.sources.items():
        pieces = [parts[archive][0][name] for archive in source.archives]
        if source.generate is not None:
            pieces.append(Made({source.depths[0]: source.generate()}))
        made[name] = Made(
            {
                depth: [one for piece in pieces for one in piece.documents[depth]]
                for depth in source.depths
                if depth != "L3"  # for later: it takes the documents of every source to make it
            },
            sum((piece.dropped for piece in pieces), Counter[str]()),
        )
    return made, {name: licence for name, (_, licence) in parts.items()}


def _read_archive(
    archive: Archive, licence: Licence, sources: list[tuple[str, Source]]
) -> tuple[dict[str, Made], dict[str, str]]:
    """What one archive gives to each of `sources`, and its licence (run in a worker process)."""
    made: dict[str, Made] = {}
    for name, source in sources:
        assert source.extract is not None  # a source with archives has one
        documents = source.extract(archive)
        if source.rule is None:
            made[name] = Made({source.depths[0]: documents})
        else:
            kept, dropped = clean(documents, source.rule, source.trim)
            made[name] = Made({"L1": documents, "L2": kept}, dropped)
    return made, _read_licence(archive, licence)


def _filter_by_model(recipe: Recipe, made: dict[str, Made]) -> str:
    """Add Level 3 to every source that has it; return how well the model tells the domains apart, for the log.

    The model neither sees nor drops held-out documents: Level 3 is measured on those of Level 2.
    """
    sources = {name: source for name, source in recipe.sources.items() if "L3" in source.depths}
    training = {
        name: [one for one in made[name].documents["L2"] if not one.is_heldout(source.heldout_fraction)]
        for name, source in sources.items()
    }
    judged, quality = model_filter.judge({name: (source.domain, training[name]) for name, source in sources.items()})
    for name, source in sources.items():
        dropped, said = model_filter.drop_least_typical(source.domain, training[name], judged[name])
        made[name].documents["L3"] = [one for one in made[name].documents["L2"] if one.id not in dropped]
        made[name].judged = said | {"classifier": vars(quality[source.domain])}
    return "; ".join(f"{name} precision {one.precision:.3f} recall {one.recall:.3f}" for name, one in quality.items())


def _tokenizer(recipe: Recipe, folder: Path, key: str, made: dict[str, Made]) -> Path:
    """Train the tokenizer on the training documents of the level that is measured, unless this recipe's is there."""
    from davinci.data.tokenizer_training import train

    path, record = folder / "tokenizer.json", folder / "tokenizer.recipe.json"
    if path.is_file() and record.is_file() and read_json(record) == {"key": key, "digest": file_digest(path)}:
        return path
    documents: dict[str, list[Document]] = {}
    for name, source in recipe.sources.items():
        documents.setdefault(source.domain, []).extend(
            one
            for one in made[name].documents[measured_level(source.depths)]
            if not one.is_heldout(source.heldout_fraction)
        )
    train(documents, recipe.vocab_size, path)
    write_json(record, {"key": key, "digest": file_digest(path)})
    return path


def _variants(
    name: str, source: Source, folder: Path, tokenizer: TokenizerCard, key: str, made: Made, log: Log
) -> dict[str, dict[str, Any]]:
    """Write (or keep) each depth of a source; return their cards."""
    from davinci.data import writing
    from davinci.data.document_files import write_documents

    documents = made.documents
    cards: dict[str, dict[str, Any]] = {}
    for depth in source.depths:
        place = folder / f"{name}@{depth}"
        card = writing.read_variant(place, key)
        if card is None:
            chain = _chain(source, depth, made)
            with tempfile.TemporaryDirectory(prefix=".documents.", dir=folder) as temporary:
                part = Path(temporary) / "0.parquet"
                write_documents(part, documents[depth])
                card = writing.write_variant(place, [part], source.heldout_fraction, tokenizer, key, chain)
            log(f"{place.name}: {card['documents']:,} documents, {card['tokens']:,} tokens")
        cards[depth] = card
    return cards


def _chain(source: Source, depth: str, made: Made) -> list[dict[str, Any]]:
    """The operations that led to `depth`, each with the documents it left and those it dropped."""
    chain: list[dict[str, Any]] = []
    for level in source.depths[: source.depths.index(depth) + 1]:
        step: dict[str, Any] = {"level": level, "documents": len(made.documents[level])}
        if level == "L2":
            reasons = {reason: count for reason, count in sorted(made.dropped.items()) if reason != "paragraphs"}
            step |= {"operation": "rules", "dropped": reasons}
            step |= {"dropped_paragraphs": made.dropped["paragraphs"]} if source.trim else {}
        elif level == "L3":
            step |= {"operation": "typical of its domain, by naive Bayes over words"} | made.judged
        else:
            step |= {"operation": source.operation}
        chain.append(step)
    return chain


def _read_licence(archive: Archive, licence: Licence) -> dict[str, str]:
    found = dict(archive.members(lambda name: name == licence.file))
    if licence.file not in found:
        raise UserError(f"{archive.path}: has no licence file {licence.file}; its text cannot be used")
    digest = hashlib.sha256(found[licence.file]).hexdigest()
    return {"spdx": licence.spdx, "file": licence.file, "sha256": digest, "note": licence.note}


def _source_licence(source: Source, licences: dict[str, dict[str, str]]) -> dict[str, Any]:
    if not source.archives:
        return {"spdx": "Apache-2.0", "note": "made by this program", "files": {}}
    chosen = {name: licences[name] for name in source.archives}
    return {
        "spdx": " AND ".join(sorted({one["spdx"] for one in chosen.values()})),
        "note": " ".join(one["note"] for one in chosen.values() if one["note"]),
        "files": {name: {"file": one["file"], "sha256": one["sha256"]} for name, one in chosen.items()},
    }


def _archive_card(archive: Archive) -> dict[str, str]:
    return {"version": archive.pin.version, "kind": archive.pin.kind, "sha256": archive.pin.sha256}


def _recipe_key() -> str:
    """Digest of everything that decides a pool's content."""
    here = Path(__file__).parent
    digest = hashlib.sha256(f"tokenizers {importlib.metadata.version('tokenizers')}\n".encode())
    for name in _RECIPE_FILES:
        digest.update(f"{name} {file_digest(here / name)}\n".encode())
    return digest.hexdigest()


def _since(start: float) -> str:
    return f"{time.monotonic() - start:.1f} s"
