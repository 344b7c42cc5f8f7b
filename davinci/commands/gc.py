"""``gc``: remove checkpoints that no launched sweep of the store needs, after asking."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from davinci.commands.output import aligned, print_json
from davinci.launching.superfluous import Superfluous, bytes_freed, remove, superfluous
from davinci.planning.wording import count
from davinci.store import Store

WHY = {
    "finished": "in the middle of a finished stretch, evaluated; only training again brings it back",
    "no sweep": "of a stretch that no launched sweep names any more",
}
# Checkpoints listed one by one before the rest are counted.
LISTED = 20


def run(options: argparse.Namespace, store: Store) -> int:
    found = superfluous(store)
    size = bytes_freed(found)
    if options.json:
        gone, freed = remove(found, store) if options.yes else ([], 0)
        listed = [one.model_dump(mode="json") for one in found]
        print_json({"checkpoints": listed, "bytes": size, "removed": len(gone), "bytes_freed": freed})
        return 0
    if not found:
        print(f"nothing to remove: every checkpoint of {store.root} is needed by a launched sweep")
        return 0
    print(_text(found))
    print(f"{count(len(found), 'checkpoint')}, {human_bytes(size)}")
    if not options.yes and not _agreed():
        return 0
    gone, freed = remove(found, store)
    print(f"removed {count(len(gone), 'checkpoint')}: {human_bytes(freed)} freed")
    return 0


def _agreed() -> bool:
    """Ask whoever is there; nobody is where input or output is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("nothing removed: add --yes to remove them")
        return False
    try:
        answer = input("remove them? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        print("nothing removed")
        return False
    return True


def _text(found: Sequence[Superfluous]) -> str:
    lines = []
    for why, words in WHY.items():
        these = [one for one in found if one.why == why]
        if not these:
            continue
        lines.append(f"{count(len(these), 'checkpoint')} {words}:")
        lines.append(aligned([("  " + one.path, human_bytes(bytes_freed([one]))) for one in these[:LISTED]]))
        if len(these) > LISTED:
            lines.append(f"  and {len(these) - LISTED:,} more")
    return "\n".join(lines)


def human_bytes(size: int) -> str:
    """Three significant digits and a unit: ``30.4 MB``."""
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 99.95 else f"{value:.3g} {unit}"
