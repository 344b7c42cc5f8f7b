"""Makes the embedded benchmarks' item files from a pool's held-out documents.

No item uses a training document: the pool splits by document and only ``heldout.jsonl`` is read. Same pool, same bytes:
every choice comes from one recorded seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from davinci.data.cards import PoolCard, measured_level, read_card
from davinci.errors import UserError
from davinci.evaluation import arithmetic, code, prose
from davinci.evaluation.baselines import baselines
from davinci.evaluation.documents import Document, Item, read_documents
from davinci.store import Store, file_digest, read_json, write_json, write_text

GENERATOR = "davinci.evaluation.embedded"
VERSION = 2
SEED = 20260
ITEMS = 160
FEWSHOT_ITEMS = 8


@dataclass(frozen=True)
class Maker:
    """Items of one file: from which domain's documents, by which rule."""

    domain: str
    make: Callable[[list[Document], Random, int], list[Item]]


MAKERS = {
    "general_cloze": Maker("general", prose.cloze),
    "general_word_order": Maker("general", prose.word_order),
    "code_indentation": Maker("code", code.indentation),
    "code_name_order": Maker("code", code.name_order),
    "science_cloze": Maker("science", prose.cloze),
    "arithmetic": Maker("qa", arithmetic.questions),
}


def make_tasks(store: Store, pool: str) -> None:
    """Write ``tasks/<benchmark>.jsonl`` and ``tasks/manifest.json`` of a built pool, unless they are current.

    The manifest records generator, version, seed, the digests of the held-out files read, and for each benchmark its
    items, digest and the scores of guessing by length and by word frequency.

    Raises:
        UserError: the pool is not built, or its held-out documents do not yield enough items.
    """
    card = read_card(store, pool)
    if card is None:
        raise UserError(f"{store.pool(pool)}: pool {pool} is not built; python -m davinci data build {pool}")
    folder = store.pool(pool) / "tasks"
    files = _heldout_files(card)
    origin = {
        "generator": GENERATOR,
        "version": VERSION,
        "seed": SEED,
        "heldout": {name: file_digest(store.pool(pool) / name / "heldout.jsonl") for name in sorted(files)},
    }
    if _is_current(store, pool, origin):
        return
    documents: dict[str, list[Document]] = {}
    for name, (source, domain) in sorted(files.items()):
        documents.setdefault(domain, []).extend(read_documents(source, store.pool(pool) / name / "heldout.jsonl"))
    benchmarks: dict[str, Any] = {}
    for benchmark, maker in MAKERS.items():
        found = documents.get(maker.domain, [])
        items = maker.make(found, Random(f"{SEED}:{VERSION}:{benchmark}"), ITEMS + FEWSHOT_ITEMS)
        if len(items) < 4 * FEWSHOT_ITEMS:
            raise UserError(
                f"pool {pool}: the {len(found)} held-out {maker.domain} documents yield {len(items)} items for "
                f"{benchmark}, too few; hold out more documents"
            )
        rows = [
            {"id": index, "split": "test" if index < len(items) - FEWSHOT_ITEMS else "fewshot", **item}
            for index, item in enumerate(items)
        ]
        path = folder / f"{benchmark}.jsonl"
        write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
        benchmarks[benchmark] = {
            "digest": file_digest(path),
            "items": len(items) - FEWSHOT_ITEMS,
            "fewshot_items": FEWSHOT_ITEMS,
            "baselines": baselines(items[:-FEWSHOT_ITEMS], found),
        }
    write_json(folder / "manifest.json", {**origin, "benchmarks": benchmarks})


def _heldout_files(card: PoolCard) -> dict[str, tuple[str, str]]:
    """``<source>@<depth>`` of each source at the level that is measured, with the source's name and domain."""
    sources = card.sources.items()
    return {f"{name}@{measured_level(source.variants)}": (name, source.domain) for name, source in sources}


def _is_current(store: Store, pool: str, origin: dict[str, Any]) -> bool:
    folder = store.pool(pool) / "tasks"
    if not (folder / "manifest.json").is_file():
        return False
    manifest = read_json(folder / "manifest.json")
    if {key: manifest.get(key) for key in origin} != origin or set(manifest["benchmarks"]) != set(MAKERS):
        return False
    paths = {name: folder / f"{name}.jsonl" for name in MAKERS}
    return all(
        path.is_file() and file_digest(path) == manifest["benchmarks"][name]["digest"] for name, path in paths.items()
    )
