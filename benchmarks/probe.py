"""What a plan says a sweep will take, refined by a probe, against the sweep's measured wall time on this machine.

The median of five estimates (``plan_only=true probe=true``, three before the sweep and two after it) should lie within
20% of the wall time of the whole ``python launch.py -m sweep=qa_ratio_stage2_2`` process, from an empty store with the
pool built. Others at work on the machine spoil both, if not alike; how much of it they used is printed. Usage:
python benchmarks/probe.py [--quick] [--scale smoke tiny] [--workers 2]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from _table import Row, finish

from davinci.store import Store, read_json

ROOT = Path(__file__).resolve().parent.parent
SWEEP, POOL = "qa_ratio_stage2_2", "embedded"
TOLERANCE = 0.2


def busy_seconds() -> float:
    """Core-seconds this machine has been busy since it started; 0 where the kernel does not tell."""
    try:
        times = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return 0.0
    return (sum(times) - times[3] - times[4]) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Core-seconds of the processes this one has waited for, theirs included."""
    times = os.times()
    return times.children_user + times.children_system


def run(arguments: list[str], store: Store) -> tuple[float, str]:
    """Seconds of one ``launch.py`` process, and how much others used the machine meanwhile."""
    command = [sys.executable, str(ROOT / "launch.py"), "-m", f"sweep={SWEEP}", *arguments, f"store={store.root}"]
    started, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    seconds = time.perf_counter() - started
    return seconds, f"others kept {max(0.0, (busy_seconds() - busy - own_seconds() + own) / seconds):.1f} cores busy"


def estimate(arguments: list[str], store: Store) -> float:
    """Seconds that a plan with a probe says."""
    _, others = run([*arguments, "plan_only=true", "probe=true"], store)
    seconds = 86400 * float(read_json(store.sweep(SWEEP) / "plan.json")["cost"]["days"]["left"])
    print(f"  estimate {seconds:.1f} s ({others})", flush=True)
    return seconds


def built_pool(folder: Path) -> Path:
    """The pool as conf/ has it now: the checkout's own where it is current, else made again in `folder`."""
    for part in ("archives", "pools"):
        if (ROOT / "store" / part).is_dir():
            shutil.copytree(ROOT / "store" / part, folder / part)
    subprocess.run(
        [sys.executable, "-m", "davinci", "data", "build", POOL, "--store", str(folder)], cwd=ROOT, check=True
    )
    return Store(folder).pool(POOL)


def compare(scale: str, overrides: list[str], estimates: int, pool: Path, folder: Path) -> Row:
    """The figure of one scale."""
    stores = [Store(folder / f"{scale}-{name}") for name in ("probed", "trained")]
    for store in stores:
        shutil.copytree(pool, store.pool(POOL))
    probed, trained = stores
    arguments = [f"scale={scale}", *overrides]
    print(f"{SWEEP} {' '.join(arguments)}", flush=True)
    before = -(-estimates * 3 // 5)
    found = [estimate(arguments, probed) for _ in range(before)]
    measured, others = run(arguments, trained)
    print(f"  measured {measured:.1f} s ({others})", flush=True)
    found += [estimate(arguments, probed) for _ in range(estimates - before)]
    middle = median(found)
    spread = f"{middle:.0f} s ({min(found):.0f} to {max(found):.0f})"
    agreement = 1 - abs(middle / measured - 1)
    return Row(f"wall time at {' '.join(arguments)}", spread, f"{measured:.0f} s", agreement, 1 - TOLERANCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one estimate of two seeds at scale smoke")
    parser.add_argument("--scale", nargs="+", default=["smoke", "tiny"])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    overrides = [f"cluster.workers={options.workers}", *(["seed=0,1"] if options.quick else [])]
    scales = ["smoke"] if options.quick else options.scale
    with tempfile.TemporaryDirectory(prefix="davinci-bench-") as temporary:
        folder = Path(temporary)
        pool = built_pool(folder / "built")
        rows = [compare(scale, overrides, 1 if options.quick else 5, pool, folder) for scale in scales]
    finish("A probed plan's wall time (ratio: 1 - relative error of the median)", rows, peer="measured")


if __name__ == "__main__":
    main()
