"""Killed, resumed, forked or cut anywhere: the same bits, averages included; and what a resume refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pools import tiny_pool
from training_nodes import LENGTH, boundary, tiny_model, tiny_node, tiny_stage

from davinci.config import Node
from davinci.errors import UserError
from davinci.store import Store
from davinci.training import checkpoints as saved
from davinci.training.loop import Stopped, train

STEPS = 8
EMA = {"kind": "ema", "half_life_tokens": 6 * LENGTH}
SMALL = tiny_model(layers=1, hidden_size=16, attention_heads=2, kv_heads=1, mlp_intermediate_size=24)


class Killed(BaseException):
    """As sudden as SIGKILL: nothing may be written on the way out."""


def run(node: Node, store: Store, ends: str = "", after: int = 0) -> None:
    """Train; after `after` steps the training is ``killed``, or asked to stop (``stopped``)."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        if asked == after and ends == "killed":
            raise Killed
        return asked == after and ends == "stopped"

    try:
        train(
            node,
            store,
            checkpoints=(),
            attempt=1,
            progress=lambda *_: None,
            should_stop=should_stop,
            heldout_sequences=1,
        )
    except (Killed, Stopped):
        assert ends


def chain(cut: int | None = None) -> list[Node]:
    """A stage with an average, perhaps as two nodes, and one after it that carries the average and resets the rest."""
    every = {"checkpoint_every_tokens": 3 * LENGTH, "model": SMALL.model_dump(mode="json")}
    first = tiny_node(id="first", stage=tiny_stage(STEPS, averages=EMA), **every)
    nodes = [first]
    if cut is not None:
        middle = boundary(first, cut)
        nodes = [first.model_copy(update={"id": "head", "end": middle})]
        nodes.append(first.model_copy(update={"parent": "head", "begin": middle}))
    stage = tiny_stage(STEPS, averages=EMA, optimizer_state="reset", data_cursors="reset")
    nodes.append(tiny_node(id="last", parent="first", stage_begin=first.end, begin=first.end, stage=stage, **every))
    return nodes


def ended(store: Store) -> dict[str, bytes]:
    folder = store.checkpoint("last", chain()[-1].end)
    assert saved.is_valid(folder)
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted training ends with."""
    store = Store(tmp_path_factory.mktemp("whole"))
    tiny_pool(store, tokens=4_000)
    for node in chain():
        run(node, store)
    found = ended(store)
    assert found.keys() == {"model.safetensors", "optimizer.safetensors", "average.safetensors"}
    return found


ends = st.lists(st.tuples(st.sampled_from(["killed", "stopped"]), st.integers(1, STEPS - 1)), max_size=2)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=ends, last=ends, cut=st.none() | st.integers(1, STEPS - 1))
def test_interrupted_anywhere_and_cut_anywhere_it_ends_with_the_same_bits(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, first: Any, last: Any, cut: int | None
) -> None:
    store = Store(tmp_path_factory.mktemp("parts"))
    tiny_pool(store, tokens=4_000)
    for node in chain(cut):
        for how, after in last if node.id == "last" else first:
            run(node, store, how, after)
        run(node, store)
    assert ended(store) == whole


def trained(store: Store) -> tuple[Node, Path]:
    """A node stopped half way, and its checkpoint."""
    node = chain()[0]
    run(node, store, "stopped", 4)
    return node, store.checkpoint(node.id, boundary(node, 4))


def test_a_checkpoint_of_a_newer_version_is_refused_and_kept(store: Store) -> None:
    node, folder = trained(store)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"version": 99, "shards": 4}))
    with pytest.raises(UserError) as told:
        run(node, store)
    assert "state.json: written by a newer daVinci (checkpoint version 99, this one reads up to" in str(told.value)
    assert "\n" not in str(told.value) and (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("changes", [{"hidden_size": 32}, {"layers": 2}], ids=["width", "depth"])
def test_a_resume_onto_a_different_model_is_refused_and_nothing_lost(store: Store, changes: dict[str, int]) -> None:
    node, folder = trained(store)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = node.model_copy(update={"model": node.model.model_copy(update=changes)})
    with pytest.raises(UserError) as told:
        run(other, store)
    assert f"{folder / 'model.safetensors'}: not the weights of model test (" in str(told.value)
    assert "\n" not in str(told.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
