"""Bytes that training and evaluation leave in the store."""

from __future__ import annotations

from davinci.accounting.shapes import parameters
from davinci.config import Model

# Weights and AdamW's two moments, all float32 whatever the model's precision (`training.checkpoints`).
BYTES_PER_PARAMETER = 3 * 4
# What a stage that keeps an average of its weights adds.
BYTES_PER_AVERAGED_PARAMETER = 4
# Beside the tensors: two safetensors headers and state.json. Measured on the tiny model (24 tensors).
CHECKPOINT_OVERHEAD = 8_000

# Mean lengths of a row of records.jsonl, and of the items file of one evaluation (its part a benchmark and an item),
# measured on embedded_suite: 1,026 train rows, 851 probe rows, 187 evaluation rows, files of 73 kB for 11 benchmarks
# of 300 items, 8 kB for 10 items of each. A train row names the epochs of each source: here of eight to twelve.
TRAIN_ROW = 821
# What experts add to a train row: figures of all layers, and of each (measured at two and at twelve layers).
ROUTER, ROUTER_LAYER = 130, 111
HELDOUT_ROW = 190
EVALUATION_ROW = 396
PROBE_ROW = 297
ITEMS_FILE = 6_000
ITEM = 20.3


def checkpoint_bytes(model: Model, vocab_size: int, averaged: bool = False) -> int:
    """Size of one checkpoint folder, with or without an average of the weights."""
    each = BYTES_PER_PARAMETER + (BYTES_PER_AVERAGED_PARAMETER if averaged else 0)
    return each * parameters(model, vocab_size) + CHECKPOINT_OVERHEAD


def training_bytes(model: Model, vocab_size: int) -> int:
    """Memory that training cannot do without: weights, gradients and two moments in float32, no activations."""
    return 4 * 4 * parameters(model, vocab_size)


def record_bytes(
    model: Model,
    train_rows: int,
    heldout_rows: int,
    evaluation_rows: int,
    probe_rows: int,
    evaluations: int,
    items: int,
) -> int:
    """Size of records and per-item results: rows of each kind, evaluated points, and items scored over all of them."""
    train_row = TRAIN_ROW + (ROUTER + model.layers * ROUTER_LAYER if model.experts.count else 0)
    rows = train_rows * train_row + heldout_rows * HELDOUT_ROW + evaluation_rows * EVALUATION_ROW
    rows += probe_rows * PROBE_ROW
    return rows + evaluations * ITEMS_FILE + round(items * ITEM)
