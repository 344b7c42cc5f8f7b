"""Mirroring finished runs to W&B in one go: ``python -m davinci sync``, the real client, a server on loopback.

A run has 20 rows, scores, a table of them and its artifacts. It says how long a run took; the table has the most that
was asked within any second beside what W&B allows (its documentation's "Experiments limits and performance").

Usage: python benchmarks/mirror.py [--quick] [--runs 500]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _table import Row, finish

from davinci.store import Store

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "tracking")]
    from mirrored_sweep import make_many
    from wandb_server import serving

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="48 runs")
    parser.add_argument("--runs", type=int, help="500; --quick: 48")
    given = parser.parse_args()
    count = given.runs or (48 if given.quick else 500)
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        store = Store(Path(folder) / "store")
        make_many(store, count)
        command = [sys.executable, "-m", "davinci", "sync", "qa", "--store", str(store.root)]
        environment = {**os.environ, **server.environment, "HOME": folder, "PYTHONPATH": str(ROOT)}
        began = time.monotonic()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        took = time.monotonic() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        runs = [run for run in server.runs.values() if run.job_type == "run"]
        assert len(runs) == count and all(len(run.history) == 21 and run.exit_code == 0 for run in runs)
        of_a_run = max(server.most_in_a_second(f"file_stream {name}") for _, _, name in server.runs)
        of_all, begun = server.most_in_a_second("file_stream"), server.most_in_a_second("RunResumeStatus")
    processor = used.ru_utime + used.ru_stime
    a_run = f"{took / count:.2f} s a run ({processor / count:.2f} s of a processor)"
    print(f"{count} runs in {took:.0f} s: {a_run}, {used.ru_maxrss >> 10} MB")
    asked = [
        ("requests to a run's file stream", of_a_run, 2),
        ("requests to all file streams", of_all, 500),
        ("new runs", begun, 80),
    ]
    rows = [Row(what, f"{ours}", f"{allowed} allowed", allowed / max(1, ours), 1) for what, ours, allowed in asked]
    finish("Mirroring to W&B: the most within a second", rows, "limit")


if __name__ == "__main__":
    main()
