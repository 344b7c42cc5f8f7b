"""``data verify``: every checksum of a pool."""

from __future__ import annotations

import argparse

from rich.console import Console

from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    from davinci.data.verify import verify

    read = 0

    def count(file: str) -> None:
        nonlocal read
        read += 1
        status.update(file)

    with Console(stderr=True).status("") as status:
        wrong = verify(options.pool, store, count)
    for line in wrong:
        print(line)
    print(f"pool {options.pool}: {read} files, {len(wrong)} wrong")
    if wrong:
        print("remove each folder of a source with such a file, whole, and build the pool again: what is left is kept")
    return 1 if wrong else 0
