"""Which learning rate is best at which width, in the standard parametrisation and in muP, on the text of a built pool.

Models of two layers read the same batches; the learning rate rises over a tenth of the steps and falls to 0 in a line.
A figure is the loss on held-out text at the end, in nats a token; the best of a row is marked. At the base width both
parametrisations are one.

Usage: python benchmarks/width.py STORE [--steps N] [--widths 32,128] [--rates 0.004,0.016]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from davinci.config import Model, Optimizer
from davinci.config.parsing import parse
from davinci.data.batches import Batch
from davinci.data.cards import PoolCard, Split, read_card
from davinci.data.shards import Shard
from davinci.model.decoder import Decoder
from davinci.store import Store
from davinci.training.numerics import configure
from davinci.training.optimizer import build
from davinci.training.step import Objective, gradients, move

POOL, SOURCES = "embedded", ("manuals@L2", "django_code@L2")
ROWS, LENGTH, HEAD_DIM = 8, 64, 16
ADAMW = {"name": "adamw", "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "gradient_clip": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--widths", default="32,128", help="the first is the base")
    parser.add_argument("--rates", default="0.002,0.004,0.008,0.016,0.032")
    given = parser.parse_args()
    configure(1)
    store = Store(given.store)
    card = read_card(store, POOL)
    if card is None:
        parser.error(f"{given.store}: pool {POOL} is not built there")
    rates = [float(rate) for rate in given.rates.split(",")]
    widths = [int(width) for width in given.widths.split(",")]
    table = Table("parametrisation", "width", *map(str, rates), title=f"held-out loss, {given.steps} steps")
    for width in widths:
        for kind in ("standard", "mup")[: 1 if width == widths[0] else 2]:
            losses = [trained(store, card, of_width(width, widths[0], kind), rate, given.steps) for rate in rates]
            print(kind, width, *(f"{loss:.3f}" for loss in losses), flush=True)
            marked = [f"[bold]{loss:.3f}[/]" if loss == min(losses) else f"{loss:.3f}" for loss in losses]
            table.add_row(kind if width != widths[0] else "either", str(width), *marked)
    Console(width=110).print(table)


def of_width(width: int, base: int, kind: str) -> Model:
    """Two layers with heads of one size at every width."""
    heads = width // HEAD_DIM
    mup = {"kind": "mup", "base_width": base, "base_head_dim": HEAD_DIM}
    return parse(
        Model,
        {
            "name": "width",
            "layers": 2,
            "hidden_size": width,
            "attention_heads": heads,
            "kv_heads": heads // 2,
            "head_dim": HEAD_DIM,
            "mlp_intermediate_size": 11 * width // 4,
            "vocab_size": 1,
            "max_position_embeddings": LENGTH,
            "rope_theta": 10000.0,
            "norm_eps": 1e-6,
            "qkv_bias": True,
            "tie_embeddings": True,
            "initializer_range": 0.04,
            "precision": "float32",
            "parametrisation": mup if kind == "mup" else {"kind": kind},
        },
    )


def trained(store: Store, card: PoolCard, model: Model, rate: float, steps: int) -> float:
    """Held-out loss after `steps` steps from seed 0, in nats."""
    decoder = Decoder(model, card.tokenizer.vocab_size)
    decoder.initialise(0)
    objective, adamw = Objective(decoder), build(decoder, parse(Optimizer, ADAMW))
    for step, batch in enumerate(batches(store, card, "train", steps)):
        gradients(objective, batch, ADAMW["gradient_clip"])
        move(adamw, rate * min((step + 1) / (steps / 10), (steps - step) / (steps * 0.9)))
    with torch.no_grad():
        held = [objective(torch.from_numpy(batch.tokens)) for batch in batches(store, card, "heldout", 12)]
    return float(torch.stack([losses.mean() for _, losses in held]).mean())


def batches(store: Store, card: PoolCard, split: Split, count: int) -> Iterator[Batch]:
    """Batches that have as much of each source."""
    shards = []
    for place in SOURCES:
        name, _, level = place.partition("@")
        shards.append(Shard(store.pool(POOL) / place, split, card.sources[name].variants[level]))
    for step in range(count):
        places = [divmod(step * ROWS + row, len(shards)) for row in range(ROWS)]
        tokens = np.stack([shards[which].draw(0, k, LENGTH)[0] for k, which in places])
        yield Batch(tokens, np.ones((ROWS, LENGTH), dtype=np.bool_), np.zeros(ROWS, dtype=np.int64))


if __name__ == "__main__":
    main()
