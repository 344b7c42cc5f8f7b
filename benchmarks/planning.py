"""Planning a sweep against plain Hydra composing the same jobs.

Ours expands, composes, validates, hashes, audits and trees every run; the peer only composes each job's config, as
Hydra's basic sweeper and launcher do. Then two figures without a peer, of the whole process: launching again what is
finished, and planning 10,000 runs.

Usage: python benchmarks/planning.py [--quick] [--store STORE]   (STORE holds the embedded pool, or gets it)
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _finished import finish_nodes
from _table import Row, finish
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from davinci.composition import resolvers
from davinci.composition.conf import Conf
from davinci.composition.expand import expand
from davinci.data.build import build
from davinci.data.cards import PoolCard, read_card
from davinci.data.pool_files import find_pool
from davinci.evaluation.embedded import make_tasks
from davinci.planning.build import build_plans
from davinci.planning.plan import Plan
from davinci.store import Store, read_json

ROOT = Path(__file__).resolve().parent.parent
POOL = "embedded"


def sweep_lines(values: int, seeds: int) -> list[str]:
    """8 x values x 5 arms: two depths, four mixtures and two numbers; every arm with `seeds` seeds."""
    betas = ",".join(f"{0.9 + 0.09 * index / values:.5f}" for index in range(values))
    return [
        "depth=l1,l2",
        "mixture@curriculum.stages.s2_2.mixture=qa30,qa40,qa50,qa70",
        f"optimizer.beta2={betas}",
        "curriculum.stages.s2_2.lr.start=0.0001,0.0002,0.0003,0.0004,0.0005",
        f"seed=range({seeds})",
    ]


def plan_seconds(loader: ConfigLoader, card: PoolCard, lines: Sequence[str], runs: int) -> float:
    """Seconds until the sweep is expanded, composed, validated, hashed, audited and treed."""
    started = time.perf_counter()
    sweeps = expand(lines, Conf(loader), ROOT / "sweeps").sweeps
    (plan,) = build_plans(sweeps, cards={card.name: card})
    seconds = time.perf_counter() - started
    assert plan.audit.verdict == "controlled" and len(plan.runs) == runs
    return seconds


def hydra_seconds(loader: ConfigLoader, jobs: int) -> float:
    """Seconds plain Hydra needs to compose `jobs` of the same jobs."""
    master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
    started = time.perf_counter()
    for job in range(jobs):
        overrides = [
            f"depth=l{1 + job % 2}",
            f"mixture@curriculum.stages.s2_2.mixture=qa{(30, 40, 50, 70)[job % 4]}",
            f"optimizer.beta2={0.9 + job % 5 / 50:g}",
            f"curriculum.stages.s2_2.lr.start={0.0001 * (1 + job % 5):g}",
            f"seed={job}",
        ]
        for _ in range(2):  # the sweeper composes every job to check it, the launcher again to run it
            loader.load_sweep_config(master, overrides)
    return time.perf_counter() - started


def launch(lines: Sequence[str], store: Store) -> tuple[float, float, str]:
    """Seconds, peak memory in GB and output of a whole ``launch.py -m``."""
    command = [sys.executable, str(ROOT / "launch.py"), "-m", *lines, f"store={store.root}", "tracking=disabled"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
    seconds = time.perf_counter() - started
    assert process.returncode == 0, output[-2000:]
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, output


def noop_seconds(lines: Sequence[str], runs: int, pools: Path) -> float:
    """Seconds of launching a sweep of which every node is finished; the median of three."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        store.root.mkdir()
        (store.root / "pools").symlink_to(pools.absolute())
        launch([*lines, "plan_only=true"], store)
        (path,) = (store.root / "sweeps").glob("*/plan.json")
        finish_nodes(Plan.model_validate(read_json(path), strict=False), store)
        taken = []
        for _ in range(4):
            seconds, _, output = launch(lines, store)
            assert f"all {runs} runs are done" in " ".join(output.split()), output[-2000:]
            taken.append(seconds)
    return statistics.median(taken[1:])  # the first launch writes the manifests


def large_plan(lines: Sequence[str], pools: Path) -> tuple[float, float]:
    """Seconds and peak GB of planning alone, whole process."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        store.root.mkdir()
        (store.root / "pools").symlink_to(pools.absolute())
        seconds, memory, _ = launch([*lines, "plan_only=true"], store)
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the runs, 20 of the peer's jobs")
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the embedded pool is, or is built")
    given = parser.parse_args()
    seeds, jobs, many = (1, 20, 10) if given.quick else (5, 100, 50)
    runs, large = 200 * seeds, 200 * many
    store = Store(given.store)
    if read_card(store, POOL) is None:
        build(find_pool(POOL), store, print)
    make_tasks(store, POOL)
    card = read_card(store, POOL)
    assert card is not None
    pools = store.root / "pools"
    rows = []
    resolvers.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        peer = hydra_seconds(loader, jobs) / jobs
        ours = plan_seconds(loader, card, sweep_lines(5, seeds), runs) / runs
    target = 10 if given.quick else 40
    rows.append(Row(f"plan a run ({runs:,} runs)", f"{1e3 * ours:.2f} ms", f"{1e3 * peer:.0f} ms", peer / ours, target))
    again = noop_seconds(sweep_lines(5, seeds), runs, pools)
    rows.append(Row(f"launch {runs:,} finished runs again", f"{again:.2f} s", "2 s allowed", 2 / again, 1))
    seconds, memory = large_plan(sweep_lines(many, 5), pools)
    rows.append(Row(f"plan {large:,} runs", f"{seconds:.1f} s", "60 s allowed", 60 / seconds, 1))
    rows.append(Row("its peak memory", f"{memory:.2f} GB", "2 GB allowed", 2 / memory, 1))
    finish("Planning: against plain Hydra 1.3, and against what is allowed", rows)


if __name__ == "__main__":
    main()
