"""Mirroring finished runs to W&B in one go: ``python -m davinci sync``, the real client, a server on loopback.

Usage: python benchmarks/mirror.py [RUNS]   (500; each has 20 rows, scores, a table of them and its artifacts)

It says how long it took, and the most that was asked within any second beside what W&B allows (its documentation's
"Experiments limits and performance": 2 file-stream requests a run; and of a project 500, and 80 new runs).
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from davinci.store import Store

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "tracking")]
    from mirrored_sweep import make_many
    from wandb_server import serving

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
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
        per_run = max(server.most_in_a_second(f"file_stream {name}") for _, _, name in server.runs)
        print(f"{count} runs in {took:.0f} s: {took / count:.2f} s a run ({os.getloadavg()[0]:.1f} processes at work)")
        print(
            f"processor time: {(used.ru_utime + used.ru_stime) / count:.2f} s a run; {used.ru_maxrss >> 10} MB at most"
        )
        print(f"file-stream requests a second: {per_run} of 2 a run, {server.most_in_a_second('file_stream')} of 500")
        print(f"new runs a second: {server.most_in_a_second('RunResumeStatus')} of 80")


if __name__ == "__main__":
    main()
