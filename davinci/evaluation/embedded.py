"""Makes the embedded benchmarks' item files from a pool's held-out documents.

The pool splits by document and only ``heldout.jsonl`` is read; an item whose text stands in a training document all the
same, at any level, is dropped (`contamination`). Same pool, same bytes: every choice comes from one recorded seed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from davinci.data.cards import PoolCard, built_card, measured_level
from davinci.data.ngrams import contained
from davinci.errors import UserError
from davinci.evaluation import arithmetic, code, prose
from davinci.evaluation.baselines import baselines
from davinci.evaluation.contamination import grams
from davinci.evaluation.documents import Document, Item, Material, evenly, read_documents
from davinci.evaluation.training_text import Frequencies, texts
from davinci.store import Store, file_digest, read_json, write_json, write_text

GENERATOR = "davinci.evaluation.embedded"
VERSION = 3
SEED = 20260
ITEMS = 300
FEWSHOT_ITEMS = 8
# So many times the items are made, since some are dropped and grades are evened out.
SPARE = 2


@dataclass(frozen=True)
class Maker:
    """Items of one file: of which capability, from which domain's documents, by which rule.

    `grades` are an item's in turn: how hard it is, from 1.
    """

    capability: str
    domain: str
    make: Callable[[Material], list[Item]]
    grades: tuple[int, ...] = (1, 2, 3, 4)


MAKERS = {
    "general_cloze": Maker("vocabulary", "general", prose.cloze),
    "general_word_order": Maker("syntax", "general", prose.word_order),
    "general_function_words": Maker("grammar", "general", prose.function_words),
    "code_indentation": Maker("block structure", "code", code.indentation, (1, 2, 3)),
    "code_name_order": Maker("code syntax", "code", code.name_order),
    "code_punctuation": Maker("code grammar", "code", code.punctuation),
    "science_cloze": Maker("terminology", "science", prose.cloze),
    "science_function_words": Maker("technical grammar", "science", prose.function_words),
    "science_formulas": Maker("formula syntax", "science", code.formulas),
    # Mostly the easiest: on the others a model of a million parameters stays near zero.
    "arithmetic": Maker("arithmetic", "qa", arithmetic.questions, (1, 1, 2, 1, 1, 3)),
}


def make_tasks(store: Store, pool: str) -> None:
    """Write ``tasks/<benchmark>.jsonl`` and ``tasks/manifest.json`` of a built pool, unless they are current.

    The manifest records generator, version, seed, the digests of the held-out files and of the pool, and for each
    benchmark its capability, domain, items by grade, digest, how many items were dropped since they stand in the
    training text, and the scores of guessing by length and by frequency.

    Raises:
        UserError: the pool is not built, or its held-out documents do not yield enough items.
    """
    card = built_card(store, pool)
    folder = store.pool(pool) / "tasks"
    files = _heldout_files(card)
    origin = {
        "generator": GENERATOR,
        "version": VERSION,
        "seed": SEED,
        "heldout": {name: file_digest(store.pool(pool) / name / "heldout.jsonl") for name in sorted(files)},
        "pool": {
            name: {level: one.digest for level, one in sorted(source.variants.items())}
            for name, source in sorted(card.sources.items())
        },
    }
    if _is_current(store, pool, origin):
        return
    documents: dict[str, list[Document]] = {}
    for name, (source, domain) in sorted(files.items()):
        documents.setdefault(domain, []).extend(read_documents(source, store.pool(pool) / name / "heldout.jsonl"))
    frequencies = Frequencies(store, pool, card)
    made = {
        benchmark: maker.make(
            Material(
                documents.get(maker.domain, []),
                Random(f"{SEED}:{VERSION}:{benchmark}"),
                frequencies.of,
                SPARE * (ITEMS + FEWSHOT_ITEMS),
            )
        )
        for benchmark, maker in MAKERS.items()
    }
    asked = {
        benchmark: [grams(item["context"], item["choices"][item["label"]]) for item in items]
        for benchmark, items in made.items()
    }
    seen = contained((gram for rows in asked.values() for row in rows for gram in row), texts(store, pool, card))
    benchmarks: dict[str, Any] = {}
    for benchmark, maker in MAKERS.items():
        clean = [item for item, row in zip(made[benchmark], asked[benchmark], strict=True) if seen.isdisjoint(row)]
        items = evenly(clean, ITEMS + FEWSHOT_ITEMS, maker.grades)
        if len(items) < 4 * FEWSHOT_ITEMS:
            raise UserError(
                f"pool {pool}: the {len(documents.get(maker.domain, []))} held-out {maker.domain} documents yield "
                f"{len(items)} items for {benchmark}, too few; hold out more documents"
            )
        tests, examples = items[:-FEWSHOT_ITEMS], items[-FEWSHOT_ITEMS:]
        rows = [
            {"id": index, "split": split, "capability": maker.capability, **item}
            for index, (split, item) in enumerate(
                [*(("test", item) for item in tests), *(("fewshot", item) for item in examples)]
            )
        ]
        path = folder / f"{benchmark}.jsonl"
        write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
        benchmarks[benchmark] = {
            "capability": maker.capability,
            "domain": maker.domain,
            "digest": file_digest(path),
            "items": len(tests),
            "grades": {str(grade): count for grade, count in sorted(Counter(item["grade"] for item in tests).items())},
            "fewshot_items": FEWSHOT_ITEMS,
            "made": len(made[benchmark]),
            "in_training_text": len(made[benchmark]) - len(clean),
            "baselines": baselines(tests, frequencies),
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
