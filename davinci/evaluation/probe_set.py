"""The embedded probe set of a pool: questions made from a seed and from held-out documents, none of them in the text
that is trained on.

An item is left out where its last `GRAM` words (all, where it has fewer), the right answer included, stand in a row in
the training text (13 words: GPT-3, arXiv 2005.14165, appendix C).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from davinci.config import Probes
from davinci.data.cards import PoolCard, measured_level, read_card
from davinci.errors import UserError
from davinci.evaluation import arithmetic, code, prose
from davinci.evaluation.documents import Document, clip_left, read_documents
from davinci.evaluation.documents import Item as Made
from davinci.evaluation.probe_items import Item, read_items, write_items
from davinci.evaluation.probe_key import VERSION, probe_file, set_key
from davinci.evaluation.probe_makers import MAKERS, questions
from davinci.store import Store, file_digest, read_json, write_json, write_text

GENERATOR = "davinci.evaluation.probe_set"
SEED = 52_001
# Of each capability; what is made from documents is longer, so there is less of it.
ITEMS, DOCUMENT_ITEMS = 128, 48
# Bytes of the context that a document gives.
CONTEXT_BYTES = 80
GRAM = 13
# Of each source: a pool of trillions of tokens is not read for a few thousand items.
TOKENS_READ = 20_000_000

# Capability -> domain of the held-out documents, and the benchmarks' own rule.
DOCUMENTS = {
    "prose cloze": ("general", prose.cloze),
    "science cloze": ("science", prose.cloze),
    "code indentation": ("code", code.indentation),
    "word problems": ("qa", arithmetic.questions),
}

_WORD = re.compile(r"\w+|[^\w\s]")


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
    card = read_card(store, pool)
    if card is None:
        raise UserError(f"{store.pool(pool)}: pool {pool} is not built; python -m davinci data build {pool}")
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
    made = _synthetic() | _from_documents(store, pool, card)
    grams = {item.id: _gram(item) for items in made.values() for item in items}
    seen = _contained(grams.values(), texts(store, pool, card))
    kept: list[Item] = []
    counts: dict[str, Any] = {}
    for capability, items in made.items():
        clean = [item for item in items if grams[item.id] not in seen]
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


def _from_documents(store: Store, pool: str, card: PoolCard) -> dict[str, list[Item]]:
    documents: dict[str, list[Document]] = {}
    for name, source in sorted(card.sources.items()):
        path = store.pool(pool) / f"{name}@{measured_level(source.variants)}" / "heldout.jsonl"
        if path.is_file():
            documents.setdefault(source.domain, []).extend(read_documents(name, path))
    made = {}
    for capability, (domain, maker) in DOCUMENTS.items():
        try:
            found: Sequence[Made] = maker(
                documents.get(domain, []), Random(f"{SEED}:{VERSION}:{capability}"), 2 * DOCUMENT_ITEMS
            )
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


def _gram(item: Item) -> tuple[str, ...]:
    return tuple(_WORD.findall(item.context + item.choices[item.answer])[-GRAM:])


def texts(store: Store, pool: str, card: PoolCard) -> Iterator[str]:
    """The training text of every source at its shallowest level, which holds that of the deeper ones, in pieces."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(store.pool(pool) / card.tokenizer.file))
    for name, source in sorted(card.sources.items()):
        level = min(source.variants)
        path = store.pool(pool) / f"{name}@{level}" / "train.bin"
        if not path.is_file():
            continue
        tokens = np.fromfile(path, dtype="<u2", count=TOKENS_READ)
        ends = np.flatnonzero(tokens == 0)
        cuts = np.unique(
            np.append(ends[np.searchsorted(ends, np.arange(0, len(tokens), 1 << 18)[1:]) - 1], len(tokens))
        )
        begin = 0
        for cut in cuts.tolist():
            if cut > begin:
                yield tokenizer.decode(tokens[begin:cut].tolist(), skip_special_tokens=True)
            begin = cut


def _contained(grams: Iterable[tuple[str, ...]], some: Iterable[str]) -> set[tuple[str, ...]]:
    """Those of `grams` whose words stand in a row in one of the texts.

    Words become numbers (0: in no gram), a row of n of them a polynomial modulo 2^64; what hashes alike is compared.
    """
    wanted = sorted(set(grams))
    numbers = {word: index for index, word in enumerate(sorted({word for gram in wanted for word in gram}), start=1)}
    by_length: dict[int, dict[int, list[tuple[str, ...]]]] = {}
    for gram in wanted:
        row = np.array([numbers[word] for word in gram], dtype=np.uint64)
        by_length.setdefault(len(gram), {}).setdefault(int(_hashes(row, len(gram))[0]), []).append(gram)
    found: set[tuple[str, ...]] = set()
    for text in some:
        words = np.array([numbers.get(word, 0) for word in _WORD.findall(text)], dtype=np.uint64)
        for length, known in by_length.items():
            if len(words) < length:
                continue
            hashes = _hashes(words, length)
            listed = np.sort(np.array(list(known), dtype=np.uint64))
            places = np.minimum(np.searchsorted(listed, hashes), len(listed) - 1)
            hits = np.flatnonzero(listed[places] == hashes)
            for place in hits.tolist():
                row = words[place : place + length].tolist()
                found.update(gram for gram in known[int(hashes[place])] if [numbers[word] for word in gram] == row)
    return found


def _hashes(words: npt.NDArray[np.uint64], length: int) -> npt.NDArray[np.uint64]:
    """A hash of every `length` words in a row."""
    count = len(words) - length + 1
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        total = total * np.uint64(0x9E3779B97F4A7C15) + words[offset : offset + count]
    return total
