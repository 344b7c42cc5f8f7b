"""``sync``: send finished runs to W&B."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from davinci.launching.lock import Lock
from davinci.store import Store
from davinci.tracking.wandb_mirror import is_finished, is_mirrored, mirror, run_ids


def run(options: argparse.Namespace, store: Store) -> int:
    def send(runs: Sequence[str]) -> None:
        new = [run for run in runs if not is_mirrored(store, options.sweep, run)]
        if new:
            with Lock(store.wandb, on_wait=lambda owner: print(f"waiting for {owner}", flush=True)):
                mirror(store, options.sweep, new, lambda line: print(line, flush=True))

    everything = run_ids(store, options.sweep)
    if options.watch:
        os.nice(10)  # Training comes first.
        for line in sys.stdin:
            send([line.strip()])
        return 0
    finished = [run for run in everything if is_finished(store, options.sweep, run)]
    send(finished)
    print(f"{len(finished)} of {len(everything)} runs are finished and mirrored")
    return 0
