"""How busy training keeps a GPU: tokens a second and MFU at 150M, 1B and 3B parameters, bfloat16 and compiled blocks.

    python benchmarks/training_gpu.py                                     # one GPU
    torchrun --standalone --nproc-per-node 8 benchmarks/training_gpu.py   # FSDP2 over eight
    python benchmarks/training_gpu.py --variants                          # every variant of the decoder at 150M

One step is what the loop does for a step: `gradients` and `move`, on random tokens; median of `STEPS` after `WARM`. MFU
is model FLOPs (PaLM, arXiv 2204.02311, appendix B) over the card's dense bfloat16 peak. Exits with 1 where MFU is under
`TARGET`, which variants are not held to; without a GPU it says so and exits with 0. `--cpu` runs a tiny shape there, to
see that the script works.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from _variants import VARIANTS
from rich.console import Console
from rich.table import Table

from davinci.accounting.accelerators import known_peak
from davinci.accounting.flops import train_flops_per_token
from davinci.accounting.shapes import parameters
from davinci.config import Execution, Model, Optimizer, parse
from davinci.data.batches import Batch
from davinci.model.decoder import Decoder
from davinci.training import fsdp, numerics, optimizer
from davinci.training.distributed import Ranks, device, join
from davinci.training.regions import prepare
from davinci.training.step import Objective, gradients, move

WARM, STEPS = 5, 20
TARGET = 0.45
VOCABULARY = 151_936  # Qwen2's
# Name: layers, hidden, heads, key-value heads, MLP, sequence length, tokens at once, activations.
SHAPES = {
    "150M": (12, 640, 10, 2, 2304, 2048, 32_768, "none"),
    "1B": (24, 1536, 12, 2, 6144, 4096, 32_768, "selective"),
    "3B": (36, 2048, 16, 2, 11_008, 4096, 16_384, "full"),
}
TINY = {"tiny": (2, 64, 4, 2, 128, 64, 256, "selective")}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cpu", action="store_true", help="a tiny shape, to see that the script works")
    options.add_argument("--variants", action="store_true", help="every variant of the decoder at 150M")
    given = options.parse_args()
    if not torch.cuda.is_available() and not given.cpu:
        print(f"skipped: torch {torch.__version__} finds no GPU here (--cpu tries the script on a tiny shape)")
        return 0
    numerics.configure(torch.get_num_threads())
    with join() as ranks:
        shapes = TINY if given.cpu else SHAPES
        if given.variants:
            name, shape = next(iter(shapes.items()))
            rows = []
            for variant, changes in VARIANTS.items():
                try:
                    rows.append(measured(ranks, f"{name}, {variant}", shape, changes))
                except torch.OutOfMemoryError:
                    print(f"{name}, {variant}: does not fit into the GPU's memory")
        else:
            rows = [measured(ranks, name, shape, {"qkv_bias": True}) for name, shape in shapes.items()]
        if ranks.is_first:
            show(rows, ranks)
    return not given.variants and any(mfu is not None and mfu < TARGET for *_, mfu in rows)


def measured(
    ranks: Ranks, name: str, shape: tuple[int, int, int, int, int, int, int, str], changes: Mapping[str, Any]
) -> tuple[str, int, float, float, float | None]:
    """Of a shape with a variant: name, parameters, tokens a second of all ranks, peak memory of this one in bytes,
    MFU."""
    torch.compiler.reset()  # which compiles a block's code for eight models at most
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    layers, hidden, heads, kv_heads, mlp, length, tokens, activations = shape
    vocabulary = VOCABULARY if torch.cuda.is_available() else 512
    model = parse(
        Model,
        {
            "name": name,
            "layers": layers,
            "hidden_size": hidden,
            "attention_heads": heads,
            "kv_heads": kv_heads,
            "head_dim": hidden // heads,
            "mlp_intermediate_size": mlp,
            "vocab_size": vocabulary,
            "max_position_embeddings": length,
            "rope_theta": 10000.0,
            "norm_eps": 1e-6,
            "qkv_bias": False,
            "tie_embeddings": True,
            "initializer_range": 0.02,
            "precision": "bfloat16",
            **changes,
        },
    )
    execution = Execution(parallel="fsdp", micro_tokens=tokens, compile=True, activation_checkpointing=activations)
    objective = placed(model, execution, ranks)
    adam = Optimizer(name="adamw", beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, gradient_clip=1.0)
    adamw = optimizer.build(objective.decoder, adam)
    rows = tokens // length
    generator = np.random.default_rng(ranks.rank)
    batch = Batch(
        generator.integers(0, vocabulary, (rows, length + 1)),
        np.ones((rows, length), dtype=np.bool_),
        np.zeros(rows, dtype=np.int64),
    )
    seconds = []
    for _ in range(WARM + STEPS):
        started = time.perf_counter()
        outcome = gradients(objective, batch, 1.0, ranks, rows * ranks.world, tokens)
        move(adamw, 1e-4)
        assert outcome.is_finite  # waits for the step, as the loop does only to write a record
        seconds.append(time.perf_counter() - started)
    rate = rows * length * ranks.world / statistics.median(seconds[WARM:])
    gpu = device()
    peak = known_peak(torch.cuda.get_device_name(gpu)) if gpu.type == "cuda" else None
    flops = train_flops_per_token(model, vocabulary, length)
    memory = torch.cuda.max_memory_allocated(gpu) if gpu.type == "cuda" else 0
    return name, parameters(model, vocabulary), rate, memory, peak and flops * rate / (peak * ranks.world)


def placed(model: Model, execution: Execution, ranks: Ranks) -> Objective:
    """The objective on this rank's device, split over the ranks where there are several."""
    gpu = device()
    with torch.device("meta" if ranks.world > 1 else gpu):
        objective = Objective(Decoder(model, model.vocab_size))
    prepare(objective.decoder, execution)
    if ranks.world > 1:
        fsdp.shard(objective, objective.decoder.model.layers, gpu, model.precision)
        with gpu:
            objective.decoder.set_angles()
    with torch.no_grad():
        for one in objective.decoder.parameters():
            torch.nn.init.normal_(one, std=0.02) if one.ndim > 1 else torch.nn.init.ones_(one)
    return objective


def show(rows: list[tuple[str, int, float, float, float | None]], ranks: Ranks) -> None:
    """The table, with what it was measured on."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    table = Table(
        "model",
        "parameters",
        "tokens/s",
        "peak memory",
        "MFU",
        title=f"{ranks.world} x {where}, torch {torch.__version__}",
    )
    for name, count, rate, memory, mfu in rows:
        table.add_row(name, f"{count:,}", f"{rate:,.0f}", f"{memory / 1e9:.1f} GB", "" if mfu is None else f"{mfu:.1%}")
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
