"""``data card``: what is in a pool's sources, and what their chains did."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from davinci.commands.output import print_json
from davinci.data.cards import built_card
from davinci.data.data_cards import DataCard, Step, data_cards
from davinci.errors import UserError, nearest
from davinci.store import Store

_EXCERPT = 100  # letters of a sample on the screen


def run(options: argparse.Namespace, store: Store) -> int:
    card = built_card(store, options.pool)
    for name in options.source:
        if name not in card.sources:
            raise UserError(f"--source {name}: pool {options.pool} has no such source" + nearest(name, card.sources))
    cards = data_cards(card, options.source)
    if options.json:
        print_json({"cards": [one.model_dump(mode="json") for one in cards]})
    else:
        print("\n\n".join("\n".join(_lines(one)) for one in cards))
    return 0


def _lines(card: DataCard) -> Iterator[str]:
    note = f" ({card.licence['note']})" if card.licence.get("note") else ""
    yield f"{card.source}: {card.domain}, pool {card.pool}, licence {card.licence.get('spdx', 'not known')}{note}"
    packages = card.origin.get("packages", {})
    for name, about in packages.items():
        yield f"  from {name} {about.get('version', '')}, sha256 {about.get('sha256', '')[:16]}"
    yield f"  {'level':<7}{'documents':>11}{'tokens':>14}{'bytes':>14}{'held out':>10}  {'digest':<17}"
    for one in card.levels:
        same = f"  the documents of {', '.join(one.same_documents)}" if one.same_documents else ""
        yield (
            f"  {one.level:<7}{one.documents:>11,}{one.tokens:>14,}{one.bytes:>14,}{one.heldout_documents:>10,}"
            f"  {one.digest[:16]}{same}"
        )
    for step in max((one.chain for one in card.levels), key=len, default=()):
        yield from _step(step)


def _step(step: Step) -> Iterator[str]:
    yield f"  {step.text}"
    for reason, samples in step.samples.items():
        for one in samples[:1]:
            yield f"      {reason}: {one.id}: {' '.join(one.text.split())[:_EXCERPT]}"
