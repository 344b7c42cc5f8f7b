"""``data items``: the items of a suite as text, for whoever keeps them out of a pool."""

from __future__ import annotations

import argparse
from pathlib import Path

from davinci.commands.output import print_json
from davinci.data.contamination import BenchmarkItem, read_items
from davinci.errors import UserError
from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    if options.suite.endswith(".jsonl"):
        raise UserError(f"{options.suite}: is a file of items already; the operation decontaminated takes it as it is")
    path = written(options.suite, options.pool, options.override, store)
    items = read_items(path)
    counts: dict[str, int] = {}
    for one in items:
        counts[one.benchmark] = counts.get(one.benchmark, 0) + 1
    if options.json:
        print_json({"file": str(path), "benchmarks": counts})
    else:
        print(f"{len(items):,} items of {len(counts)} benchmarks: {path}")
    return 0


def items_of(suite: str, pool: str, overrides: list[str], store: Store) -> list[BenchmarkItem]:
    """The items of a JSONL file or folder, or of a suite of conf/evaluation."""
    given = Path(suite)
    return read_items(given if suite.endswith(".jsonl") or given.is_dir() else written(suite, pool, overrides, store))


def written(suite: str, pool: str, overrides: list[str], store: Store) -> Path:
    """The file in the store that the items of a suite were written to just now."""
    from davinci.composition.suites import suite as composed  # imports hydra
    from davinci.evaluation.suite_items import write_items

    store.require_writable()
    return write_items(composed(suite, "tiny", pool, overrides), pool, store)
