"""Evaluation on a CPU against lm-eval's own HFLM: the same weights, the same requests, in turn.

A decoder is trained for some steps on the embedded pool and exported for transformers. Both sides answer lm-eval's
requests of the embedded benchmarks, ranked choices (few-shot too) and written answers; HFLM at the best of several
batch sizes. The table also says how far the log-likelihoods are apart, how many written answers differ, and what
evaluation takes of a tiny run.

Usage: python benchmarks/evaluation.py [--quick] [--threads 1] [--rounds 3] [--store STORE] [--peers FOLDER]

HFLM runs in a virtual environment of its own (`--peers`), made where it is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from _peers import peer_python
from _share import share
from _table import Row, finish
from safetensors.torch import load_file
from tokenizers import Tokenizer
from training import POOL, SHAPES, Shape, node_of

from davinci.accounting.shapes import parameters
from davinci.data.build import build
from davinci.data.cards import PoolCard, read_card
from davinci.data.pool_files import find_pool
from davinci.evaluation.embedded import make_tasks
from davinci.evaluation.suite import EMBEDDED_TASKS, task_config, task_files
from davinci.model.export import export
from davinci.store import Store
from davinci.training.loop import train
from davinci.training.numerics import configure

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0", "lm-eval[hf]==0.4.13")
BATCHES = (8, 32, 64, 128)
STEPS = {"1M": 60, "6M": 60, "20M": 30}
# Items of each benchmark: a round of the larger sizes would take minutes with all 300.
ITEMS = {"1M": 300, "6M": 100, "20M": 40}
LENGTH = 512


def tasks() -> dict[str, list[str]]:
    """The embedded tasks by what the model does."""
    found: dict[str, list[str]] = {"choice": [], "generation": []}
    for name, file in sorted(task_files("embedded").items()):
        kind = task_config(file)["output_type"]
        found["generation" if kind == "generate_until" else "choice"].append(name)
    return found


class Evaluator:
    """A process of `_evaluators.py`."""

    def __init__(self, name: str, folder: Path, python: Path, column: int) -> None:
        self.name, self._column = name, column
        self._log = (folder / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__).parent / "_evaluators.py"), name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self.requests: dict[str, int] = {}
        self.requests = json.loads(self._read().removeprefix("ready").replace("'", '"'))

    def answer(self, kind: str, batch: int = 1) -> float:
        """Seconds that all requests of a kind took, by the clock in `column`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {batch}\n")
        self._process.stdin.flush()
        return float(self._read().split()[self._column])

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            sys.exit(f"{self.name} ended: {self._log.read()[-2000:]}")
        return line


def prepare(shape: Shape, card: PoolCard, pools: Path, folder: Path, given: argparse.Namespace) -> None:
    """Train a little, and write what both sides read."""
    store = Store(folder / "store")
    store.root.mkdir()
    (store.root / "pools").symlink_to(pools.absolute())
    node = node_of(shape, card, STEPS[shape.name])
    # Room for shots: rotary positions hold no weights.
    node = node.model_copy(update={"model": node.model.model_copy(update={"max_position_embeddings": LENGTH})})
    configure(given.threads)
    train(node, store, checkpoints=[node.end], attempt=1, progress=lambda *_: None, should_stop=lambda: False)
    weights = load_file(store.checkpoint(node.id, node.end) / "model.safetensors")
    (folder / "model.safetensors").symlink_to(store.checkpoint(node.id, node.end) / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(store.pool(POOL) / "tokenizer.json"))
    export(folder / "hf", weights, node.model, node.vocab_size, tokenizer)
    race = {
        "model": node.model.model_dump(mode="json"),
        "vocab_size": node.vocab_size,
        "length": LENGTH,
        "threads": given.threads,
        "tasks": tasks(),
        "folder": str(EMBEDDED_TASKS),
        "items": str(store.pool(POOL) / "tasks"),
        "shots": given.shots,
        "limit": given.limit or ITEMS[shape.name],
    }
    (folder / "race.json").write_text(json.dumps(race))


def race(shape: Shape, card: PoolCard, pools: Path, given: argparse.Namespace, python: Path) -> list[Row]:
    """The rows of one size."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="davinci-bench-") as temporary:
        folder = Path(temporary)
        prepare(shape, card, pools, folder, given)
        column = 1 if given.cpu_time else 0
        ours = Evaluator("daVinci", folder, Path(sys.executable), column)
        peer = Evaluator("hflm", folder, python, column)
        for kind in ("choice", "generation"):
            count = ours.requests[kind]
            tried = {batch: peer.answer(kind, batch) for batch in BATCHES}
            best = min(tried, key=tried.__getitem__)
            print(
                f"  {kind}: HFLM { ({batch: round(count / one) for batch, one in tried.items()}) } requests/s",
                flush=True,
            )
            ours.answer(kind)
            mine, theirs = [], []
            for _ in range(given.rounds):
                mine.append(ours.answer(kind))
                theirs.append(peer.answer(kind, best))
            ratio = statistics.median(other / one for one, other in zip(mine, theirs, strict=True))
            one, other = count / statistics.median(mine), count / statistics.median(theirs)
            what = f"{shape.name}, {given.shots} shots: {'ranked choices' if kind == 'choice' else 'written answers'}/s"
            rows.append(Row(what, f"{one:,.0f}", f"{other:,.0f} (batch {best})", ratio, 2))
            rows.append(agreement(shape, kind, folder))
        ours.end()
        peer.end()
    return rows


def agreement(shape: Shape, kind: str, folder: Path) -> Row:
    """How far the two sides' answers are apart."""
    mine, theirs = (json.loads((folder / f"{name}-{kind}.json").read_text()) for name in ("daVinci", "hflm"))
    if kind == "choice":
        apart = max(abs(one[0] - other[0]) for one, other in zip(mine, theirs, strict=True))
        same = sum(one[1] != other[1] for one, other in zip(mine, theirs, strict=True))
        print(f"  greedy or not differs in {same} of {len(mine)}")
        return Row(
            f"{shape.name}: log-likelihoods apart, nats", f"{apart:.1e}", "1e-4 allowed", 1e-4 / max(apart, 1e-9), 1
        )
    differ = sum(one != other for one, other in zip(mine, theirs, strict=True))
    return Row(
        f"{shape.name}: written answers that differ", f"{differ} of {len(mine)}", "0 allowed", float(not differ), 1
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="one round at 1M, 40 items a benchmark, a tenth of the run"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--limit", type=int, default=None, help="items of each benchmark")
    parser.add_argument("--sizes", nargs="+", choices=[one.name for one in SHAPES], default=["1M", "6M", "20M"])
    parser.add_argument("--cpu-time", action="store_true", help="processor time, for a machine that others use too")
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the embedded pool is, or is built")
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "davinci-evaluation-peers")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.sizes, given.limit = 1, ["1M"], given.limit or 40
    store = Store(given.store)
    card = read_card(store, POOL)
    if card is None:
        build(find_pool(POOL), store, print)
        card = read_card(store, POOL)
    assert card is not None
    make_tasks(store, POOL)
    python = peer_python(given.peers, PACKAGES)
    if python is None:
        sys.exit("nothing to compare with")
    torch.set_flush_denormal(True)
    rows = []
    for shape in SHAPES:
        if shape.name in given.sizes:
            count = parameters(node_of(shape, card, 1).model, card.tokenizer.vocab_size)
            print(f"{shape.name}: {count:,} parameters", flush=True)
            rows += race(shape, card, store.root / "pools", given, python)
    clock = time.process_time if given.cpu_time else time.perf_counter
    rows.append(share(card, store.root / "pools", given.threads, 10 if given.quick else 1, clock))
    threads = f"{given.threads} thread{'s' * (given.threads > 1)}"
    finish(f"Evaluation on a CPU, {threads}, against HFLM", rows)


if __name__ == "__main__":
    main()
