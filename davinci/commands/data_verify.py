"""``data verify``: every checksum of a pool."""

from __future__ import annotations

import argparse

from rich.console import Console

from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    from davinci.data.checksums import SOON
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
    if wrong:
        print(
            f"python -m davinci data build {options.pool} (a pool of your own: its file) makes them again; where the "
            f"files of a source are more than {SOON >> 20} MiB, remove its folder first"
        )
    print(f"pool {options.pool}: {read} files, {len(wrong)} wrong")
    return 1 if wrong else 0
