"""Experts balanced by a bias: what a step does to it, and that it is one state however training is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gang import Gang, joined
from safetensors.torch import load_file
from test_fsdp import FSDP, assert_close, assert_same, fresh, run
from training_nodes import LENGTH, tiny_model, tiny_node, tiny_stage

from davinci.config import Execution, Node
from davinci.data.batches import Batches
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import positions
from davinci.training.distributed import ALONE
from davinci.training.placement import place
from davinci.training.step import gradients

BIAS = ".mlp.gate.e_score_correction_bias"
EXPERTS = {"count": 4, "chosen": 2, "shared": 1, "balance": 0.1, "bias_rate": 0.01, "scores": "sigmoid"}


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
    figures = {name.removeprefix("router/") for name in row if name.startswith("router/")}
    of_layers = {"load_max", "entropy", "unused", "balance"}
    each = {f"{name}/{layer}" for name in of_layers for layer in (0, 1)}
    assert figures == of_layers | each | {"bias_min", "bias_max"}
    for name in of_layers:
        parts = [row[f"router/{name}/{layer}"] for layer in (0, 1)]
        assert row[f"router/{name}"] == pytest.approx(sum(parts) / 2, abs=1e-4)


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


def one_step(ranks: Any, one: Node, root: Path, micro: int) -> dict[str, Any]:
    """The first step's loss, balancing loss, choices and gradients, as this rank has them."""
    placed = place(one, positions.Position(0, average_begin=0), ranks, Execution())
    batch = Batches(one, Store(root), {}, ranks.rank, ranks.world).batch(0)
    outcome = gradients(placed.objective, batch, 1e9, ranks, 5, micro)
    found = {name: parameter.grad for name, parameter in placed.decoder.named_parameters()}
    assert outcome.loads is not None and outcome.balance is not None
    return {"loss": torch.tensor(outcome.loss), "balance": outcome.balance, "loads": outcome.loads} | found


@pytest.mark.parametrize("changes", [{}, {"shared": 0, "bias_rate": 0.0, "scores": "softmax"}], ids=["bias", "none"])
def test_loss_and_gradients_do_not_depend_on_how_a_batch_is_cut(four: Gang, store: Store, changes: Any) -> None:
    """Into micro-batches of a row, of two and of all five, on one rank; on two ranks, of which one has a row more."""
    one = node(experts=EXPERTS | {"balance": 1.0} | changes)
    whole = one_step(ALONE, one, store.root, 5 * LENGTH)
    gates = [grad for name, grad in whole.items() if name.endswith("gate.weight")]
    assert whole["balance"].shape == (2,) and all(float(grad.abs().max()) > 1e-3 for grad in gates)
    cut = [one_step(ALONE, one, store.root, rows * LENGTH) for rows in (1, 2)]
    for found in (*cut, *four.run(2, joined, one_step, one, store.root, LENGTH)):
        assert isinstance(found, dict), found
        assert torch.equal(found["loads"], whole["loads"])
        for name, value in whole.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


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
