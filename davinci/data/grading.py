"""Grades a sample of a source by a language model: labels for a classifier of one's own."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator
from pathlib import Path

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.l3_model_filter.by_grade import GradedByLlm
from davinci.data.making import Making
from davinci.data.operations import Places
from davinci.data.pool_files import PoolFile
from davinci.data.reporting import Log, Report
from davinci.data.tally import Tally
from davinci.data.workers import workers
from davinci.errors import UserError, nearest
from davinci.store import Store, atomic_file


def grade(
    file: PoolFile, source: str, depth: Level, number: int, grader: GradedByLlm, output: Path, store: Store, log: Log
) -> Tally:
    """Write a JSONL file of graded documents, made to `depth` first where they are not; returns what grading counted.

    The sample is the `number` documents whose ids hash lowest, held-out ones left aside: the same ones each time, and a
    larger sample holds the smaller one. Rows are id, split_key, text and the grade as label.

    Raises:
        UserError: the pool has no such source or depth; what building or asking raises.
    """
    if source not in file.pool.sources:
        raise UserError(f"pool {file.pool.name} has no source {source!r}" + nearest(source, file.pool.sources))
    folder = store.pool(file.pool.name)
    places = Places(folder, store.cache, store.archives, file.root)
    chains = file.chains(tuple(file.pool.sources), places)
    chain = chains[source]
    if depth not in chain.ends:
        raise UserError(f"source {source} of pool {file.pool.name} exists at {', '.join(chain.ends)}, not at {depth}")
    making = Making(chains, folder / "build", places)
    store.require_writable()
    with workers(1) as hands:
        making.make({source: {chain.ends[depth]}}, hands, Report(log))
    chosen = _sample(making.documents(source, depth), number, chain.heldout_fraction)
    tally = Tally()
    with atomic_file(output) as temporary, temporary.open("w", encoding="utf-8") as rows:
        for one in grader.located(places).run(iter(chosen), tally, places):
            row = {"id": one.id, "split_key": one.split_key, "text": one.text, "label": float(one.origin["grade"])}
            rows.write(json.dumps(row, ensure_ascii=False) + "\n")
    return tally


def _sample(documents: Iterator[Document], number: int, heldout_fraction: float) -> list[Document]:
    free = (one for one in documents if not one.is_heldout(heldout_fraction))
    return heapq.nsmallest(number, free, key=lambda one: hashlib.sha256(b"grade\0" + one.id.encode()).digest())
