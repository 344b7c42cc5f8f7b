"""Analysis of a large sweep against what is allowed, and of offline W&B files against wandb's own reader.

A sweep of 500 runs that share nothing, with 1,000 rows of 30 metrics, 4 evaluations and their per-item results a run,
as records on disk. Measured in a process of its own: loading it and making every table, with nothing kept from
before (cold), again, and after one run more has recorded something. The peer, ``wandb leet inspect --json``, prints
what a run's offline file holds; ours reads it into arrays. A run that was queued again has a file an attempt: the peer
prints one after the other, ours merges them. Of both the whole processes count, less as many that only start: the
median of several rounds, more where a file is short and what is measured are hundredths of a second.

Usage: python benchmarks/analysis.py [--quick] [--cpu-time]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from _table import Row, finish
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from davinci.composition import resolvers
from davinci.composition.conf import Conf
from davinci.composition.expand import expand
from davinci.data.cards import PoolCard, SourceCard, TokenizerCard, VariantCard
from davinci.planning.build import build_plans
from davinci.planning.plan import Plan
from davinci.store import Store, write_text

ROOT = Path(__file__).resolve().parent.parent
ROWS, ITEMS, SEEDS = 1000, 50, 5
METRICS = [
    *("loss", "lr", "grad_norm", "tokens_per_second", "update_ratio", "mfu"),
    *(f"loss/{domain}" for domain in ("general", "code", "science", "qa")),
    *(f"update_ratio/{kind}" for kind in ("embedding", "attention", "mlp", "norm")),
    *(f"epochs/source{index}" for index in range(16)),
]

# Loads a sweep and makes its tables; says how long that took, and at most how much memory the process had.
STUDY = """
import json, resource, sys, time
from pathlib import Path
from analysis.findings import study
from davinci.store import Store
clock = time.process_time if sys.argv[3] == "cpu" else time.perf_counter
started = clock()
found = study(Store(Path(sys.argv[1])), sys.argv[2])
tables = clock() - started
values = len(found.sweep.frame)
seconds = clock() - started
read = {node for node in found.sweep.recorded.read}
runs = sum(bool(read & set(run.nodes)) for run in found.sweep.plan.runs)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": seconds, "tables": tables, "values": values, "runs": runs, "memory": memory}))
"""

# Has wandb log some steps of a run of ten metrics, offline: what one attempt of it would.
WRITING = """
import random, sys, wandb
quiet = {"console": "off", "silent": True, "x_disable_stats": True, "x_disable_meta": True, "disable_git": True}
again = {"id": "requeued", "resume": "allow", "settings": wandb.Settings(**quiet)}
run = wandb.init(mode="offline", project="benchmark", dir=sys.argv[1], **again)
chance = random.Random(0)
for step in range(int(sys.argv[2]), int(sys.argv[3])):
    run.log({"tokens": 512 * step, **{f"train/loss/{name}": chance.random() for name in range(10)}})
run.finish()
print("{}")
"""

# Reads the offline files of a run, or does all but that.
READING = """
import sys
from pathlib import Path
from analysis.wandb_files import read_run
if sys.argv[1:]:
    print(*read_run([Path(path) for path in sys.argv[1:]]).history.values.shape)
"""
ROUNDS = 3


def card() -> PoolCard:
    """A card of the embedded pool with the sizes that its config states: nothing of it is trained on here."""
    config = yaml.safe_load((ROOT / "conf/pool/embedded.yaml").read_text())

    def variant(tokens: int) -> VariantCard:
        sizes = {"documents": 1000, "bytes": 4 * tokens}
        heldout = {"heldout_tokens": 10**4, "heldout_documents": 10, "heldout_bytes": 10**5}
        return VariantCard(digest="0" * 64, tokens=tokens, chain=(), **sizes, **heldout)

    sources = {
        name: SourceCard(
            domain=one["domain"],
            licence={},
            archive={},
            variants={depth: variant(one["tokens"]) for depth in one["depths"]},
        )
        for name, one in config["sources"].items()
    }
    tokenizer = TokenizerCard(file="tokenizer.json", digest="0" * 64, vocab_size=config["vocab_size"])
    return PoolCard(name=config["name"], tokenizer=tokenizer, sources=sources)


def planned(arms: int) -> Plan:
    """`arms` values of one number that matters from the first step on, by `SEEDS` seeds."""
    betas = ",".join(f"{0.9 + 0.09 * index / arms:.5f}" for index in range(arms))
    resolvers.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        lines = [f"optimizer.beta2={betas}", f"seed=range({SEEDS})"]
        sweeps = expand(lines, Conf(loader), ROOT / "sweeps").sweeps
        pool = card()
        (plan,) = build_plans(sweeps, cards={pool.name: pool})
    return plan


def record(store: Store, plan: Plan, runs: Sequence[Any]) -> None:
    """Write what `runs` would have recorded: `ROWS` training rows a run, and scores with their items at its points."""
    chance = np.random.default_rng(0)
    for run in runs:
        suite = plan.config(run).evaluation
        nodes = [plan.nodes[node] for node in run.nodes]
        for node in nodes:
            count = ROWS // len(nodes)
            tokens = np.linspace(node.begin, node.end, count + 1).astype(int)[1:]
            values = chance.random((count, len(METRICS)))
            lines = []
            for row, at in enumerate(tokens.tolist()):
                about = {"kind": "train", "attempt": 1, "tokens": at, "step": at // 512, "time": 1.7e9 + at / 1e3}
                named = dict(zip(METRICS, values[row].tolist(), strict=True))
                lines.append(json.dumps(about | named | {"batch": 4}))
            for point in run.points:
                if point.node == node.id:
                    lines += score(store, node.id, point.tokens, suite, chance)
            path = store.records(node.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")  # not synced: thousands of files would wait for the disk


def score(store: Store, node: str, tokens: int, suite: Any, chance: np.random.Generator) -> list[str]:
    """Write one evaluation's items and return its rows."""
    right = chance.random((len(suite.benchmarks), ITEMS)) < 0.5
    key = f"{tokens:016d}"
    path = store.node(node) / "evaluations" / f"{key}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = np.repeat(list(suite.benchmarks), ITEMS)
    items = np.tile(np.arange(ITEMS, dtype=np.int32), len(suite.benchmarks))
    pq.write_table(pa.table({"benchmark": names, "item": items, "score": right.ravel().astype(float)}), path)
    lines = []
    for (name, about), scores in zip(suite.benchmarks.items(), right, strict=True):
        row = {"kind": "evaluation", "attempt": 1, "tokens": tokens, "step": tokens // 512, "time": 1.7e9}
        row |= {"benchmark": name, "domain": about.domain, "protocol": about.protocol, "metric": about.metric}
        lines.append(json.dumps(row | {"score": scores.mean(), "items": ITEMS, "key": key, "suite": suite.key}))
    return lines


def _snippet(code: str, *arguments: object) -> dict[str, Any]:
    """What a snippet prints; not in this process, in which `analysis` is this file."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def reading(folder: Path, steps: int, cpu_time: bool, attempts: int = 1) -> Row:
    """The offline files of a run, one an attempt, read by us and by wandb's own inspector."""
    place = folder / f"{steps}-{attempts}"
    ends = [steps * index // attempts for index in range(attempts + 1)]
    for first, last in itertools.pairwise(ends):
        _snippet(WRITING, place, first, last)
    files = sorted(map(str, place.glob("wandb/offline-run-*/*.wandb")))
    assert len(files) == attempts
    inspect = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect"]
    commands = {
        "ours": [([sys.executable, "-c", READING, *files], [sys.executable, "-c", READING])],
        "peer": [([*inspect, "--json", file], [*inspect, "--help"]) for file in files],
    }
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(ROUNDS + 20_000 // steps):
        for name, pairs in commands.items():
            said, took = b"", 0.0
            for command, idle in pairs:
                printed, whole = _timed(command, cpu_time)
                said, took = said + printed, took + whole - _timed(idle, cpu_time)[1]
            assert said.split() == [b"%d" % steps, b"10"] or said.count(b'"type":"history"') == steps
            seconds[name].append(took)
    mine, peer = (statistics.median(some) for some in seconds.values())
    what = "an offline file" if attempts == 1 else f"{attempts} offline files of a run, in all"
    return Row(f"read {what} of {steps:,} steps", f"{mine:.2f} s", f"{peer:.1f} s", peer / mine, 10)


def _timed(command: Sequence[str], cpu_time: bool) -> tuple[bytes, float]:
    """What a command prints, and the seconds it took: of the clock, or of processors."""
    started, before = time.perf_counter(), os.times()
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return said, used if cpu_time else time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the runs, short files")
    parser.add_argument("--cpu-time", action="store_true", help="compare processor time, on a machine not at rest")
    options = parser.parse_args()
    quick, cpu_time = options.quick, options.cpu_time
    arms, sizes = (20, [10_000]) if quick else (100, [2_000, 20_000, 60_000])
    share = 1 / 5 if quick else 1
    folder = Path(tempfile.mkdtemp(prefix="davinci-analysis-"))
    try:
        rows = [reading(folder, steps, cpu_time) for steps in sizes]
        rows.append(reading(folder, sizes[-1], cpu_time, attempts=4))
        plan = planned(arms)
        store = Store(folder / "store")
        write_text(store.sweep(plan.sweep) / "launched.json", plan.model_dump_json())
        record(store, plan, plan.runs[:-1])
        measure = STUDY, store.root, plan.sweep, "cpu" if cpu_time else "wall"
        cold, warm = _snippet(*measure), _snippet(*measure)
        record(store, plan, plan.runs[-1:])
        added = _snippet(*measure)
    finally:
        shutil.rmtree(folder)
    runs = len(plan.runs)
    assert warm["runs"] == 0, "nothing changed, nothing was read"
    allowed = 5 * share
    for name, one in (("cold", cold), ("again", warm), ("one run added", added)):
        what = f"load {runs} runs, every table: {name}"
        rows.append(Row(what, f"{one['tables']:.2f} s", f"{allowed:g} s allowed", allowed / one["tables"], 1))
    memory = max(one["memory"] for one in (cold, warm, added))
    rows.append(Row(f"peak memory ({added['values'] / 1e6:.1f} M values)", f"{memory:.2f} GB", "2 GB", 2 / memory, 1))
    rows.append(Row("runs read again after one is added", f"{added['runs']:.0f}", "1", 1 / max(added["runs"], 1), 1))
    print(f"with every value as a row of one frame too: cold {cold['seconds']:.2f} s, again {warm['seconds']:.2f} s")
    finish("Analysis: against what is allowed, and against wandb's own reader", rows, "peer or limit")


if __name__ == "__main__":
    main()
