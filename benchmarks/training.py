"""Training on a CPU against what else one could train the same model with, and what the whole loop costs.

At 1, 6 and 20 million parameters the program's own loop (data, schedules, loss by domain, records) races a plain
PyTorch loop in the nanoGPT manner, transformers' Qwen2 under its Trainer and litgpt's GPT in the plain loop: one shape,
one pool's batches, the same initial weights (litgpt's are its own), AdamW and clip, the same number of threads.
Contenders are processes that take turns of a few steps; a figure is the median over rounds. transformers and litgpt
come from a virtual environment of their own (`--peers`), made where it is missing; a peer that cannot be had is left
out, and said.

With `--compile` all of them use torch.compile: the program on each block, the others on the whole model. Compiling is
not timed.

Usage: python benchmarks/training.py [--quick] [--compile] [--threads 1] [--rounds 7] [--store STORE] [--peers FOLDER]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _order import order_rows
from _peers import peer_python
from _table import Row, finish
from safetensors.torch import save_file

from davinci.accounting.shapes import parameters
from davinci.config import Model, Node, parse
from davinci.data.batches import Batches
from davinci.data.build import build
from davinci.data.cards import PoolCard, read_card
from davinci.data.pool_files import find_pool
from davinci.model.decoder import Decoder
from davinci.store import Store

POOL = "embedded"
PEERS = ("plain", "transformers", "litgpt")
PACKAGES = ("torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0", "litgpt==0.5.9")
LR = 1e-3


@dataclass(frozen=True)
class Shape:
    """A size: its model, batch, sequence length, steps a turn, and the most the whole loop may add to a bare step."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    mlp: int
    sequences: int
    length: int
    steps: int
    overhead: float


SHAPES = (
    Shape("1M", 4, 128, 4, 2, 352, 16, 128, 8, 0.10),
    Shape("6M", 7, 256, 4, 2, 704, 8, 256, 2, 0.05),
    Shape("20M", 10, 384, 6, 2, 1408, 8, 256, 1, 0.03),
)


def node_of(shape: Shape, card: PoolCard, steps: int) -> Node:
    """`steps` steps of the shape over every source of the pool at its deepest level, each of its own weight."""
    model = parse(
        Model,
        {
            "name": shape.name,
            "layers": shape.layers,
            "hidden_size": shape.hidden,
            "attention_heads": shape.heads,
            "kv_heads": shape.kv_heads,
            "head_dim": shape.hidden // shape.heads,
            "mlp_intermediate_size": shape.mlp,
            "vocab_size": card.tokenizer.vocab_size,
            "max_position_embeddings": shape.length,
            "rope_theta": 10000.0,
            "norm_eps": 1e-6,
            "qkv_bias": True,
            "tie_embeddings": True,
            "initializer_range": 0.02,
            "precision": "float32",
        },
    )
    tokens = steps * shape.sequences * shape.length
    sources = {}
    for name, source in card.sources.items():
        depth = max(source.variants)
        variant = source.variants[depth]
        sources[name] = {"domain": source.domain, "depth": depth, "digest": variant.digest, "weight": variant.tokens}
    return parse(
        Node,
        {
            "id": "race",
            "parent": None,
            "stage_name": "race",
            "stage_begin": 0,
            "begin": 0,
            "end": tokens,
            "stage": {
                "tokens": tokens,
                "sequence_length": shape.length,
                "batch_size": [{"from_tokens": 0, "sequences": shape.sequences}],
                "lr": {"shape": "constant", "start": LR},
                "mixture": {"domains": {"general": 1.0}},
                "mask_questions": False,
                "optimizer_state": "carry",
            },
            "sources": sources,
            "mixture_position": 0,
            "initialisation_seed": 1,
            "data_seed": 2,
            "model": model.model_dump(mode="json"),
            "optimizer": {
                "name": "adamw",
                "beta1": 0.9,
                "beta2": 0.95,
                "eps": 1e-8,
                "weight_decay": 0.1,
                "gradient_clip": 1.0,
            },
            "pool": card.name,
            "tokenizer_digest": card.tokenizer.digest,
            "vocab_size": card.tokenizer.vocab_size,
            "checkpoint_every_tokens": 1 << 50,
        },
    )


def prepare(shape: Shape, card: PoolCard, pools: Path, folder: Path, given: argparse.Namespace, steps: int) -> None:
    """Write what the contenders of one size read."""
    store = Store(folder / "store")
    store.root.mkdir()
    (store.root / "pools").symlink_to(pools.absolute())
    node = node_of(shape, card, steps)
    reader = Batches(node, store, {})
    np.save(folder / "batches.npy", np.stack([reader.batch(step).tokens for step in range(steps)]).astype(np.uint16))
    model = Decoder(node.model, node.vocab_size)
    model.initialise(node.initialisation_seed)
    save_file({name: one.detach() for name, one in model.named_parameters()}, folder / "model.safetensors")
    race = {
        "model": node.model.model_dump(mode="json"),
        "node": node.model_dump(mode="json"),
        "length": shape.length,
        "threads": given.threads,
        "compile": given.compile,
    }
    (folder / "race.json").write_text(json.dumps(race))


class Contender:
    """A process of `_contenders.py`."""

    def __init__(self, name: str, folder: Path, python: Path) -> None:
        self.name, self.rates, self.loss = name, list[float](), 0.0
        self._log = (folder / f"{name}.log").open("w+")
        command = [str(python), str(Path(__file__).parent / "_contenders.py"), name, str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def is_ready(self) -> bool:
        """Wait for it; false where it ended instead."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip() == "ready"

    @property
    def last_words(self) -> str:
        self._log.seek(0)
        return (self._log.read().strip().splitlines() or ["it said nothing"])[-1]

    def take(self, steps: int, tokens: int, column: int) -> float:
        """Take `steps` steps of `tokens` tokens; tokens a second by the clock in `column`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if not answer:
            sys.exit(f"{self.name} ended: {self.last_words}")
        self.loss = float(answer[2])
        return steps * tokens / float(answer[column])

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()


def race(shape: Shape, card: PoolCard, pools: Path, given: argparse.Namespace, pythons: dict[str, Path]) -> list[Row]:
    """The rows of one size."""
    tokens = shape.sequences * shape.length
    with tempfile.TemporaryDirectory(prefix="davinci-bench-") as temporary:
        folder = Path(temporary)
        prepare(shape, card, pools, folder, given, (given.rounds + 2) * shape.steps + 2)
        contenders = {}
        for name, python in pythons.items():
            contender = Contender(name, folder, python)
            if contender.is_ready():
                contenders[name] = contender
            else:
                print(f"  {name} is left out: {contender.last_words}", flush=True)
                contender.end()
        column = 1 if given.cpu_time else 0
        for one in contenders.values():
            one.take(shape.steps, tokens, column)  # warm
        for _ in range(given.rounds):
            for one in contenders.values():
                one.rates.append(one.take(shape.steps, tokens, column))
        for one in contenders.values():
            spread = f"{min(one.rates):,.0f} to {max(one.rates):,.0f}"
            print(f"  {one.name}: {statistics.median(one.rates):,.0f} tokens/s ({spread}), loss {one.loss:.4f}")
            one.end()
    rates = {name: statistics.median(one.rates) for name, one in contenders.items()}
    fastest = max((name for name in rates if name in PEERS), key=lambda name: rates[name])
    ours, bare = rates["daVinci"], rates["bare"]
    return [
        Row(
            f"{shape.name}: tokens/s",
            f"{ours:,.0f}",
            f"{rates[fastest]:,.0f} ({fastest})",
            ratio(contenders["daVinci"], contenders[fastest]),
            1,
        ),
        Row(
            f"{shape.name}: of a bare step's speed",
            f"{ours:,.0f}",
            f"{bare:,.0f} (bare)",
            ratio(contenders["daVinci"], contenders["bare"]),
            1 / (1 + shape.overhead),
        ),
    ]


def ratio(one: Contender, other: Contender) -> float:
    """How many times faster `one` is: the median over rounds, in each of which both ran side by side."""
    return statistics.median(mine / theirs for mine, theirs in zip(one.rates, other.rates, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds at 1M and 6M, and the order")
    parser.add_argument("--compile", action="store_true", help="torch.compile for every contender")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", nargs="+", choices=[one.name for one in SHAPES], default=None)
    parser.add_argument("--cpu-time", action="store_true", help="processor time, for a machine that others use too")
    parser.add_argument("--store", type=Path, default=Path("store"), help="where the embedded pool is, or is built")
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "davinci-benchmark-peers")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.sizes = 3, given.sizes or ["1M", "6M"]
    store = Store(given.store)
    card = read_card(store, POOL)
    if card is None:
        build(find_pool(POOL), store, print)
        card = read_card(store, POOL)
    assert card is not None
    here = Path(sys.executable)
    other = peer_python(given.peers, PACKAGES)
    pythons = {"daVinci": here, "bare": here, "plain": here}
    if other is not None:
        pythons |= {"transformers": other, "litgpt": other}
    rows = []
    for shape in SHAPES:
        if given.sizes is None or shape.name in given.sizes:
            model = node_of(shape, card, 1).model
            count = parameters(model, card.tokenizer.vocab_size)
            print(f"{shape.name}: {count:,} parameters, {shape.sequences} x {shape.length} tokens a step", flush=True)
            rows += race(shape, card, store.root / "pools", given, pythons)
    rows += order_rows()
    threads = f"{given.threads} thread{'s' * (given.threads > 1)}"
    finish(f"Training on a CPU, {threads}, {'compiled' if given.compile else 'eager'}", rows)


if __name__ == "__main__":
    main()
