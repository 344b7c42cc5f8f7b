"""What train records say beside the loss, against the same numbers computed another way."""

from __future__ import annotations

import math

import pytest
import torch
from training_nodes import LENGTH, tiny_model, tiny_node, tiny_stage

from davinci.accounting.accelerators import PEAK_FLOPS, known_peak
from davinci.accounting.flops import train_flops_per_token
from davinci.config import Node, parse
from davinci.data.batches import Batches
from davinci.data.cards import read_card
from davinci.model.decoder import Decoder
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import instruments, loop, optimizer
from davinci.training.step import move

OPTIMIZER = tiny_node().optimizer


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("steps", [1, 3])
def test_update_ratios_are_those_of_the_weights_before_and_after(tied: bool, steps: int) -> None:
    model = Decoder(tiny_model(tie_embeddings=tied), 64)
    model.initialise(3)
    adamw = optimizer.build(model, OPTIMIZER)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        before = {name: one.detach().clone() for name, one in model.named_parameters()}
        move(adamw, 3e-3)
    found = instruments.update_ratios(model, adamw)
    kinds = {"attention", "embedding", "mlp", "norm"} | (set() if tied else {"unembedding"})
    assert found.keys() == {"update_ratio"} | {f"update_ratio/{kind}" for kind in kinds}
    belongs = {"embedding": "embed", "attention": "self_attn", "mlp": "mlp", "unembedding": "lm_head"}
    for kind in kinds:
        names = [
            name
            for name in before
            if belongs.get(kind, "norm") in name and (kind != "norm" or not {"mlp", "self_attn"} & {*name.split(".")})
        ]
        moved = math.fsum(
            float((one.detach() - before[name]).double().square().sum())
            for name, one in model.named_parameters()
            if name in names
        )
        weight = math.fsum(float(before[name].double().square().sum()) for name in names)
        assert found[f"update_ratio/{kind}"] == pytest.approx(math.sqrt(moved / weight), rel=1e-3), kind


def test_update_ratios_tell_mixers_of_tokens_apart() -> None:
    model = Decoder(tiny_model(layers=3, mixers={"pattern": ["ssm", "linear", "attention"]}), 64)
    model.initialise(3)
    adamw = optimizer.build(model, OPTIMIZER)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    move(adamw, 1e-3)
    kinds = {one.partition("/")[2] for one in instruments.update_ratios(model, adamw)}
    assert kinds == {"", "attention", "linear_attention", "ssm", "embedding", "mlp", "norm"}


def test_records_count_the_targets_that_were_in_the_loss(store: Store) -> None:
    node = tiny_node()
    _train(node, store)
    masks = [Batches(node, store, {}).batch(step).loss_mask for step in node.steps]
    counted = sum(row["targets"] for row in read(store.records(node.id), "train"))
    assert counted == sum(int(mask.sum()) for mask in masks) < node.end
    assert "targets" not in read(store.records(_trained(store, mask_questions=False)), "train")[0]


def _trained(store: Store, **changes: object) -> str:
    node = tiny_node(id="plain", stage=tiny_stage(**changes))
    _train(node, store)
    return node.id


def test_records_carry_them_and_the_epochs_of_every_source(store: Store) -> None:
    node = tiny_node()
    _train(node, store)
    rows = read(store.records(node.id), "train")
    card = read_card(store, node.pool)
    assert card is not None
    for row in rows:
        drawn = Batches(node, store, {}).cursors_at(node.stage.grid.step_at(row["tokens"]))
        for name in node.sources:
            expected = drawn[name] * LENGTH / card.sources[name].variants["L1"].tokens
            assert row[f"epochs/{name}"] == pytest.approx(expected, abs=1e-6)
        assert 0 < row["update_ratio"] < 0.2
        assert "mfu" not in row, "a CPU has no peak worth dividing by"


def test_epochs_go_on_over_stages_of_another_sequence_length(store: Store) -> None:
    first = tiny_node(id="first")
    long = first.model_dump(mode="json")
    long["stage"] |= {"sequence_length": 2 * LENGTH, "lr": {"shape": "constant", "start": 1e-3, "stop": None}}
    long |= {"id": "second", "parent": "first", "begin": first.end, "stage_begin": first.end}
    long["end"] = first.end + parse(Node, long | {"end": 2 * first.end}).stage.grid.tokens_used
    second = parse(Node, long)
    for node in (first, second):
        _train(node, store)
    row = read(store.records("second"), "train")[-1]
    card = read_card(store, first.pool)
    assert card is not None
    total = sum(row[f"epochs/{name}"] * card.sources[name].variants["L1"].tokens for name in first.sources)
    assert total == pytest.approx(second.end, rel=1e-3), "all tokens since initialisation are some source's"


def _train(node: Node, store: Store) -> None:
    nothing = lambda *_: None  # noqa: E731
    loop.train(node, store, checkpoints=(), attempt=1, progress=nothing, should_stop=lambda: False, heldout_sequences=1)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A10G", None),
        ("Tesla T4", None),
    ],
)
def test_a_driver_s_name_finds_the_peak(device: str, name: str | None) -> None:
    assert known_peak(device) == (PEAK_FLOPS[name] if name else None)


def test_mfu_is_model_flops_over_all_the_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    node = tiny_node()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    a_token = train_flops_per_token(node.model, node.vocab_size, LENGTH)
    speed = 0.4 * 2 * PEAK_FLOPS["h200"] / a_token
    assert instruments.utilisation(node, speed, torch.device("cuda"), 2) == {"mfu": 0.4}
    assert instruments.utilisation(node, speed, torch.device("cpu"), 2) == {}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA T4")
    assert instruments.utilisation(node, speed, torch.device("cuda"), 1) == {}
