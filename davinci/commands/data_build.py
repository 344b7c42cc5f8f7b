"""``data build``: make a pool and its benchmarks."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from davinci.errors import UserError
from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    from davinci.data.build import Request, build
    from davinci.data.pool_files import find_pool
    from davinci.evaluation.embedded import make_tasks

    file = find_pool(options.pool, [Path(one) for one in options.config_dir])
    depths = [depth.upper() for depth in options.depth]
    build(file, store, partial(print, flush=True), Request(depths, options.source, options.workers, options.strict))
    try:
        make_tasks(store, file.pool.name)
    except UserError as error:
        print(f"no benchmark items were made: {error}")
    return 0
