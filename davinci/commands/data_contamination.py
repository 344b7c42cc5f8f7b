"""``data contamination``: which evaluation items stand in a built pool's training text."""

from __future__ import annotations

import argparse
from typing import Any

from davinci.commands.data_items import items_of
from davinci.commands.output import print_json
from davinci.data.cards import built_card
from davinci.data.contamination import Items, Report
from davinci.errors import UserError, nearest
from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    from davinci.evaluation.training_text import documents

    card = built_card(store, options.pool)
    for name in options.source:
        if name not in card.sources:
            raise UserError(f"--source {name}: pool {options.pool} has no such source" + nearest(name, card.sources))
    if options.n < 1 or not 0 <= options.share <= 1:
        raise UserError(f"-n {options.n} --share {options.share:g}: n is 1 or more, and a share from 0 to 1")
    depth = options.depth and options.depth.upper()
    looked = [
        (name, level)
        for name, source in card.sources.items()
        for level in sorted(source.variants)
        if name in (options.source or card.sources) and depth in (None, level)
    ]
    if not looked:
        raise UserError(f"--depth {options.depth}: pool {options.pool} was not built at it")
    items = items_of(options.suite, options.pool, options.override, store)
    report = Report(Items(items, options.n, options.share))
    for name, level in looked:
        report.add(name, level, documents(store, options.pool, card, name, level))
    read = report.to_json()
    for row in read["sources"]:
        row["of_documents"] = card.sources[row["source"]].variants[row["level"]].documents
    found = {"pool": options.pool, "suite": options.suite, "n": options.n, "share": options.share, **read}
    if options.json:
        print_json(found)
    else:
        print(_text(found))
    return 0


def _text(found: dict[str, Any]) -> str:
    lines = [f"{'benchmark':<28}{'items':>8}{'too short':>11}{'hit':>8}{'share':>9}"]
    for name, row in found["benchmarks"].items():
        lines.append(f"{name:<28}{row['items']:>8,}{row['too_short']:>11,}{row['hit']:>8,}{row['share']:>9.2%}")
    lines.append(f"\n{'source':<34}{'level':>6}{'documents':>11}{'hit':>8}{'items':>8}")
    for row in found["sources"]:
        lines.append(f"{row['source']:<34}{row['level']:>6}{row['documents']:>11,}{row['hit']:>8,}{row['items']:>8,}")
        if row["documents"] < row["of_documents"]:
            lines.append(f"    the first {row['documents']:,} of {row['of_documents']:,} documents were looked through")
        for one in row["samples"]:
            text = " ".join(one["text"].split())
            lines.append(f"    document {one['document']}: {one['benchmark']} {one['item']}: {text[:90]}")
    return "\n".join(lines)
