"""Experts balanced by a bias: what a step does to it, and that it is one state however training is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gang import Gang
from safetensors.torch import load_file
from test_fsdp import FSDP, assert_close, assert_same, fresh, run
from training_nodes import LENGTH, tiny_model, tiny_node, tiny_stage

from davinci.config import Execution, Node
from davinci.store import Store
from davinci.tracking.records import read

BIAS = ".mlp.gate.e_score_correction_bias"
# The loss is one of a rank's tokens, and so another for every number of ranks: without it.
EXPERTS = {"count": 4, "chosen": 2, "shared": 1, "balance": 0.0, "bias_rate": 0.01, "scores": "sigmoid"}


@pytest.fixture(scope="module")
def four() -> Iterator[Gang]:
    ranks = Gang(4)
    yield ranks
    ranks.close()


def node(steps: int = 12, execution: Execution | None = None, **changes: Any) -> Node:
    """Steps of 5 sequences, so that ranks have different numbers of rows."""
    stage = tiny_stage(
        tokens=5 * steps * LENGTH,
        batch_size=[{"from_tokens": 0, "sequences": 5}],
        averages={"kind": "ema", "half_life_tokens": 20 * LENGTH},
    )
    model = tiny_model(**({"experts": EXPERTS} | changes)).model_dump(mode="json")
    return tiny_node(stage=stage, model=model)


def biases(store: Store, one: Node, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    found = load_file(store.checkpoint(one.id, one.end) / file)
    return {name: tensor for name, tensor in found.items() if name.endswith(BIAS)}


def test_stopped_and_resumed_is_the_same_bits(four: Gang, store: Store) -> None:
    one = node()
    run(four, 1, store, one)
    found = biases(store, one)
    assert len(found) == 2 and all(0 < float(bias.abs().max()) <= 12 * 0.01 + 1e-6 for bias in found.values())
    average = biases(store, one, "average.safetensors")
    assert all(float(average[name].abs().max()) > 0 and not torch.equal(average[name], found[name]) for name in found)
    other = fresh(store, "other")
    run(four, 1, other, one, stop=5)
    run(four, 1, other, one)
    assert_same(store, other, one)
    row = next(row for row in read(store.records(one.id)) if "router/load_max" in row)
    assert {"router/load_min", "router/entropy", "router/bias_min", "router/bias_max", "router/load/1.3"} <= row.keys()
    assert sum(row[f"router/load/0.{number}"] for number in range(4)) == pytest.approx(4, abs=1e-3)


@pytest.mark.parametrize("execution", [Execution(), FSDP], ids=["ddp", "fsdp"])
def test_two_ranks_keep_the_bias_that_one_keeps(four: Gang, store: Store, execution: Execution) -> None:
    """And go on from two ranks alone."""
    one = node()
    run(four, 1, store, one)
    split = fresh(store, "split")
    run(four, 2, split, one, execution, stop=5)
    run(four, 1, split, one, execution, stop=2)
    run(four, 2, split, one, execution)
    assert_close(store, split, one)
    for name, bias in biases(store, one).items():
        assert torch.equal(biases(split, one)[name], bias)


@pytest.mark.slow
@pytest.mark.parametrize("micro", [32, 64])
def test_parts_of_a_step_count_as_one(four: Gang, store: Store, micro: int) -> None:
    one = node()
    run(four, 1, store, one)
    cut = fresh(store, "cut")
    run(four, 1, cut, one, Execution(micro_tokens=micro))
    assert_close(store, cut, one)


VARIANTS: dict[str, dict[str, Any]] = {
    "linear": {"mixers": {"pattern": ["linear"]}},
    "state-space": {"mixers": {"pattern": ["ssm", "attention"], "state": 4}},
    "latent": {"attention": {"kind": "latent"}},
    "KAN": {"mlp": {"kind": "kan", "centres": 4}},
    "CRATE": {"attention": {"kind": "subspace"}, "mlp": {"kind": "ista"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("execution", [Execution(), FSDP], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=list(VARIANTS))
def test_variants_over_ranks_are_what_they_are_alone(
    four: Gang, store: Store, tmp_path: Path, changes: dict[str, Any], execution: Execution
) -> None:
    """Stopped with two ranks, gone on with one, then with two again."""
    one = node(8, experts={"count": 0}, **changes)
    run(four, 1, store, one)
    split = fresh(store, "split")
    run(four, 2, split, one, execution, stop=3)
    run(four, 1, split, one, execution, stop=2)
    run(four, 2, split, one, execution)
    assert_close(store, split, one)
