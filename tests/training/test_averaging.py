"""Averages of the weights: what they are, kept in checkpoints, carried between stages, the same however interrupted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_nodes import LENGTH, boundary, tiny_model, tiny_node, tiny_stage

from davinci.config import Averages, Node
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import checkpoints as saved
from davinci.training.averaging import share
from davinci.training.loop import Stopped, train

EMA = {"kind": "ema", "half_life_tokens": 10 * LENGTH}
POLYAK = {"kind": "polyak"}
SMALL = tiny_model(layers=1).model_dump(mode="json")


def run(node: Node, store: Store, checkpoints: tuple[int, ...] = (), stop_after: int | None = None) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_after

    train(
        node,
        store,
        checkpoints=checkpoints,
        attempt=1,
        progress=lambda *_: None,
        should_stop=should_stop,
        heldout_sequences=2,
    )


def averaged(rule: dict[str, Any], steps: int = 6, **changes: Any) -> Node:
    return tiny_node(stage=tiny_stage(steps, averages=rule), model=SMALL, **changes)


def tensors(store: Store, node: Node, tokens: int, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(store.checkpoint(node.id, tokens) / file)
    return found


def test_a_share_depends_on_tokens_not_on_steps() -> None:
    ema = Averages(kind="ema", half_life_tokens=100)
    assert share(ema, 0, 400, 500) == pytest.approx(0.5)
    two = share(ema, 0, 0, 50)
    assert (1 - two) ** 2 == pytest.approx(1 - share(ema, 0, 0, 100))
    polyak = Averages(kind="polyak")
    assert [share(polyak, 200, 200, 240), share(polyak, 200, 240, 280)] == [1.0, 0.5]


@pytest.mark.parametrize("rule", [EMA, POLYAK], ids=["ema", "polyak"])
def test_the_average_is_that_of_the_states_passed(store: Store, rule: dict[str, Any]) -> None:
    """Against the definition in float64, from a checkpoint of every step, at two batch sizes."""
    node = averaged(rule)
    places = [boundary(node, step) for step in range(1, 7)]
    run(node, store, tuple(places))
    plain = tiny_node(id="plain", stage=tiny_stage(6), model=SMALL)
    run(plain, store)
    assert (store.checkpoint(node.id, node.end) / "model.safetensors").read_bytes() == (
        store.checkpoint(plain.id, plain.end) / "model.safetensors"
    ).read_bytes()
    states = [tensors(store, node, tokens) for tokens in places]
    sizes = [after - before for before, after in zip([0, *places[:-1]], places, strict=True)]
    assert len(set(sizes)) == 2
    found = tensors(store, node, node.end, "average.safetensors")
    assert saved.read_state(store.checkpoint(node.id, node.end)).average_begin == 0
    if rule["kind"] == "polyak":
        shares = [size / node.end for size in sizes]
        for name, tensor in found.items():
            mean = sum(share * state[name].double() for share, state in zip(shares, states, strict=True))
            torch.testing.assert_close(tensor.double(), mean, rtol=1e-5, atol=1e-7)
    else:
        from davinci.model.decoder import Decoder

        first = Decoder(node.model, node.vocab_size)
        first.initialise(node.initialisation_seed)
        for name, tensor in found.items():
            mean = dict(first.named_parameters())[name].detach().double()
            for size, state in zip(sizes, states, strict=True):
                kept = 2 ** (-size / rule["half_life_tokens"])
                mean = kept * mean + (1 - kept) * state[name].double()
            torch.testing.assert_close(tensor.double(), mean, rtol=1e-5, atol=1e-7)
    kinds = [row["kind"] for row in read(store.records(node.id)) if row["tokens"] == node.end]
    assert kinds.count("heldout") == kinds.count("heldout_average") == 4


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_interrupted_and_resumed_gives_the_same_average(store: Store, stop: int) -> None:
    whole, parts = averaged(EMA), averaged(EMA, id="parts")
    run(whole, store)
    with pytest.raises(Stopped):
        run(parts, store, stop_after=stop)
    run(parts, store)
    assert read_bytes(store, whole) == read_bytes(store, parts)


def read_bytes(store: Store, node: Node) -> list[bytes]:
    folder = store.checkpoint(node.id, node.end)
    return [path.read_bytes() for path in sorted(folder.glob("*.safetensors"))]


@pytest.mark.parametrize(("rule", "begin"), [(EMA, 0), (EMA | {"state": "reset"}, None), (None, -1)])
def test_the_next_stage_carries_resets_or_drops_it(
    store: Store, rule: dict[str, Any] | None, begin: int | None
) -> None:
    first = averaged(EMA)
    run(first, store)
    stage = tiny_stage(4, averages=rule)
    second = tiny_node(id="second", parent=first.id, stage_begin=first.end, begin=first.end, stage=stage, model=SMALL)
    run(second, store)
    folder = store.checkpoint(second.id, second.end)
    assert saved.is_valid(folder)
    wanted = {0: 0, None: first.end, -1: None}[begin]
    assert saved.read_state(folder).average_begin == wanted
    assert (folder / "average.safetensors").exists() == (rule is not None)


def test_a_stage_cut_in_two_has_the_average_of_the_whole(store: Store) -> None:
    whole = averaged(POLYAK)
    run(whole, store)
    middle = boundary(whole, 3)
    head = whole.model_copy(update={"id": "head", "end": middle})
    tail = whole.model_copy(update={"id": "tail", "parent": "head", "begin": middle})
    run(head, store)
    run(tail, store)
    assert read_bytes(store, tail) == read_bytes(store, whole)
