"""``data build``: make a pool and its benchmarks."""

from __future__ import annotations

import argparse

from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    from davinci.data.build import build
    from davinci.evaluation.embedded import make_tasks

    build(options.pool, store, print)
    make_tasks(store, options.pool)
    return 0
