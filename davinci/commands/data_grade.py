"""``data grade``: a model's grades of a sample, as labels."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import cast, get_args

from davinci.errors import UserError
from davinci.store import Store


def run(options: argparse.Namespace, store: Store) -> int:
    from davinci.config import Level, parse
    from davinci.data.grading import grade
    from davinci.data.l3_model_filter.by_grade import GradedByLlm
    from davinci.data.pool_files import find_pool

    pool, slash, source = options.source.rpartition("/")
    if not slash:
        raise UserError(f"{options.source}: write POOL/SOURCE")
    depth = options.depth.upper()
    assert depth in get_args(Level)  # argparse saw to it
    asked = {"endpoint": options.endpoint, "model": options.model, "prompt": options.prompt, "on_failure": "drop"}
    grader = parse(GradedByLlm, asked | {"concurrency": options.concurrency}, lambda key: "data grade")
    output = Path(options.output)
    tally = grade(find_pool(pool), source, cast(Level, depth), options.sample, grader, output, store, print)
    counts = dict(sorted(tally.counted.items()))
    if options.json:
        print(json.dumps({"labels": options.output, "counted": counts, "dropped": dict(tally.dropped)}))
    else:
        print("; ".join(f"{what} {number:,}" for what, number in counts.items()))
        print(f"labels: {options.output}")
    return 0
