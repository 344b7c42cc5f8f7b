"""The embedded probe set of a pool: questions made from a seed and from held-out documents, none of them in the text
that is trained on.

An item is left out where the words at its end, the right answer included, stand in a row in the training text
(`contamination`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from davinci.config import Probes
from davinci.data.cards import PoolCard, built_card, measured_level
from davinci.data.ngrams import contained
from davinci.errors import UserError
from davinci.evaluation import embedded as benchmarks
from davinci.evaluation.contamination import grams
from davinci.evaluation.documents import Document, Material, clip_left, evenly, read_documents
from davinci.evaluation.probe_items import Item, read_items, write_items
from davinci.evaluation.probe_key import VERSION, probe_file, set_key
from davinci.evaluation.probe_makers import MAKERS, questions
from davinci.evaluation.training_text import Frequencies, texts
from davinci.store import Store, file_digest, read_json, write_json, write_text

GENERATOR = "davinci.evaluation.probe_set"
SEED = 52_001
# Of each capability; what is made from documents is longer, so there is less of it.
ITEMS, DOCUMENT_ITEMS = 128, 48
# Bytes of the context that a document gives.
CONTEXT_BYTES = 80

# Capability -> the benchmark by whose rule its items are made from held-out documents.
DOCUMENTS = {
    "prose cloze": "general_cloze",
    "science cloze": "science_cloze",
    "code indentation": "code_indentation",
    "word problems": "arithmetic",
}


def prepare(store: Store, pool: str, probes: Probes) -> None:
    """See to it that the set of `probes` is in the store.

    Raises:
        UserError: its file is gone or has changed since it was planned with, or the pool is not built.
    """
    path = probe_file(store, pool, set_key(probes))
    if probes.file is None:
        make(store, pool)
    elif not path.is_file():
        read_items(Path(probes.file))
        if file_digest(Path(probes.file)) != probes.digest:
            raise UserError(f"evaluation.probes.file: {probes.file} changed while it was launched; launch again")
        write_text(path, Path(probes.file).read_text(encoding="utf-8"))


def make(store: Store, pool: str) -> None:
    """Write ``probes/items.jsonl`` and ``probes/manifest.json`` of a built pool, unless they are current.

    Raises:
        UserError: the pool is not built.
    """
    card = built_card(store, pool)
    folder = store.pool(pool) / "probes"
    origin = {
        "generator": GENERATOR,
        "version": VERSION,
        "seed": SEED,
        "pool": {
            name: {level: one.digest for level, one in sorted(source.variants.items())}
            for name, source in sorted(card.sources.items())
        },
    }
    manifest = folder / "manifest.json"
    if manifest.is_file() and (folder / "items.jsonl").is_file():
        found = read_json(manifest)
        if all(found.get(key) == value for key, value in origin.items()):
            return
    made = _synthetic() | _from_documents(store, pool, card, Frequencies(store, pool, card))
    rows = {item.id: grams(item.context, item.choices[item.answer]) for items in made.values() for item in items}
    seen = contained((gram for some in rows.values() for gram in some), texts(store, pool, card))
    kept: list[Item] = []
    counts: dict[str, Any] = {}
    for capability, items in made.items():
        clean = [item for item in items if seen.isdisjoint(rows[item.id])]
        count = DOCUMENT_ITEMS if capability in DOCUMENTS else ITEMS
        kept += clean[:count]
        counts[capability] = {"items": len(clean[:count]), "in_training_text": len(items) - len(clean)}
    write_text(folder / "items.jsonl", write_items(kept))
    write_json(manifest, origin | {"digest": file_digest(folder / "items.jsonl"), "capabilities": counts})


def _synthetic() -> dict[str, list[Item]]:
    """More than are wanted, since some may stand in the training text."""
    made = {}
    for capability, maker in MAKERS.items():
        random = Random(f"{SEED}:{VERSION}:{capability}")
        found: list[Item] = []
        for context, right, wrong in questions(maker, random):
            choices = [right, *wrong]
            random.shuffle(choices)
            found.append(_item(capability, len(found), context, choices, choices.index(right)))
            if len(found) == 4 * ITEMS:
                break
        made[capability] = found
    return made


def _from_documents(store: Store, pool: str, card: PoolCard, frequencies: Frequencies) -> dict[str, list[Item]]:
    documents: dict[str, list[Document]] = {}
    for name, source in sorted(card.sources.items()):
        path = store.pool(pool) / f"{name}@{measured_level(source.variants)}" / "heldout.jsonl"
        if path.is_file():
            documents.setdefault(source.domain, []).extend(read_documents(name, path))
    made = {}
    for capability, benchmark in DOCUMENTS.items():
        maker, random = benchmarks.MAKERS[benchmark], Random(f"{SEED}:{VERSION}:{capability}")
        some = Material(documents.get(maker.domain, []), random, frequencies.of, 2 * DOCUMENT_ITEMS)
        try:
            found = evenly(maker.make(some), 2 * DOCUMENT_ITEMS, maker.grades)
        except (KeyError, IndexError):  # documents of another kind than the maker reads
            continue
        if found:
            made[capability] = [
                _item(capability, index, _clipped(one["context"]), one["choices"], one["label"])
                for index, one in enumerate(found)
            ]
    return made


def _clipped(context: str) -> str:
    """The end of a context: whole lines where it has several, else whole words."""
    lines = context.split("\n")
    while len(lines) > 2 and len("\n".join(lines).encode()) > CONTEXT_BYTES:
        lines = lines[1:]
    return "\n".join(lines) if len(lines) > 1 else clip_left(context, CONTEXT_BYTES)


def _item(capability: str, index: int, context: str, choices: Sequence[str], answer: int) -> Item:
    return Item(
        id=f"{capability}-{index}", capability=capability, context=context, choices=tuple(choices), answer=answer
    )
