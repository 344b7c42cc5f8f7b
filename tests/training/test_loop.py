"""Training a node: the same bits however it is interrupted, the checkpoints and records it was asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pools import tiny_pool
from safetensors.torch import load_file
from training_nodes import LENGTH, boundary, tiny_model, tiny_node, tiny_stage

from davinci.config import Execution, Node
from davinci.data.batches import Batches
from davinci.errors import UserError
from davinci.model.weights import weights_digest
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import checkpoints as saved
from davinci.training.loop import Stopped, TrainingFailed, train


def run(
    node: Node, store: Store, checkpoints: Sequence[int] = (), stop_after: int | None = None, attempt: int = 1
) -> list[tuple[int, float, float]]:
    """Train, stopping after `stop_after` steps of this call; what progress reported."""
    reports: list[tuple[int, float, float]] = []
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_after

    train(
        node,
        store,
        checkpoints=checkpoints,
        attempt=attempt,
        progress=lambda tokens, speed, loss: reports.append((tokens, speed, loss)),
        should_stop=should_stop,
        heldout_sequences=4,
    )
    return reports


def tensors(store: Store, node: Node, tokens: int | None = None) -> dict[str, torch.Tensor]:
    """Weights and optimizer state at a checkpoint (default: the end)."""
    folder = store.checkpoint(node.id, node.end if tokens is None else tokens)
    assert saved.is_valid(folder)
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found | load_file(folder / "optimizer.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def standing(store: Store, node: Node) -> list[int]:
    return sorted(int(path.name) for path in store.checkpoint(node.id, 0).parent.iterdir())


def rows(store: Store, node: Node, kind: str) -> list[dict[str, Any]]:
    """Rows of a kind without what depends on the clock or the attempt."""
    clock = ("time", "tokens_per_second", "data_wait", "attempt")
    found = [row for row in read(store.records(node.id)) if row["kind"] == kind]
    return [{name: value for name, value in row.items() if name not in clock} for row in found]


@pytest.fixture
def other(tmp_path: Path) -> Store:
    store = Store(tmp_path / "other")
    tiny_pool(store, tokens=4_000)
    return store


@pytest.mark.parametrize("stops", [(1,), (7,), (12, 3), (23,)], ids=str)
def test_interrupted_and_resumed_equals_uninterrupted(store: Store, other: Store, stops: tuple[int, ...]) -> None:
    node = tiny_node()
    run(node, store)
    for attempt, stop in enumerate(stops, start=1):
        with pytest.raises(Stopped):
            run(node, other, stop_after=stop, attempt=attempt)
        assert standing(other, node) == [boundary(node, sum(stops[:attempt]))]
    run(node, other, attempt=9)
    assert_same(tensors(store, node), tensors(other, node))
    assert weights_digest(store.checkpoint("trunk", node.end)) == weights_digest(other.checkpoint("trunk", node.end))
    for kind in ("train", "heldout"):
        assert rows(store, node, kind) == rows(other, node, kind)


def test_a_killed_process_resumes_from_its_rolling_checkpoint(store: Store, other: Store) -> None:
    node = tiny_node(checkpoint_every_tokens=5 * LENGTH)
    run(node, store)

    class Killed(BaseException):
        pass

    seen = 0

    def die() -> bool:
        nonlocal seen
        seen += 1
        if seen == 17:
            raise Killed
        return False

    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    with pytest.raises(Killed):
        train(node, other, checkpoints=(), attempt=1, progress=nothing, should_stop=die)
    assert len(standing(other, node)) == 1, "each rolling checkpoint removes the one before"
    run(node, other, attempt=2)
    assert standing(other, node) == [node.end]
    assert_same(tensors(store, node), tensors(other, node))
    assert rows(store, node, "train") == rows(other, node, "train")


def cut(begin_step: int, end_step: int, parent: str | None, name: str, **changes: Any) -> Node:
    """Part of the whole stage as a node of its own."""
    whole = tiny_node()
    return tiny_node(
        id=name, parent=parent, begin=boundary(whole, begin_step), end=boundary(whole, end_step), **changes
    )


def test_a_fork_equals_the_uncut_run(store: Store) -> None:
    whole = tiny_node()
    run(whole, store)
    last = cut(15, 24, "b", "c")
    for node in (cut(0, 5, None, "a"), cut(5, 15, "a", "b"), last):
        run(node, store)
    assert_same(tensors(store, whole), tensors(store, last))


def test_a_stage_of_another_mixture_goes_on_where_each_source_stood(store: Store) -> None:
    trunk = tiny_node()
    run(trunk, store)
    sources = {name: use.model_dump() for name, use in trunk.sources.items() if name != "maths"}
    sources["pairs"]["weight"] = 20
    branch = tiny_node(id="branch", parent="trunk", stage_begin=trunk.end, begin=trunk.end, sources=sources)
    run(branch, store)
    before = saved.read_state(store.checkpoint("trunk", trunk.end)).cursors
    after = saved.read_state(store.checkpoint("branch", branch.end)).cursors
    assert before == Batches(trunk, store, {}).cursors_at(24)
    assert sum(before.values()) == 12 * 2 + 12 * 4
    assert after == Batches(branch, store, before).cursors_at(24)
    assert after["maths"] == before["maths"]
    assert saved.read_state(store.checkpoint("branch", branch.end)).global_step == 48


def test_resuming_a_later_stage_is_exact(store: Store, other: Store) -> None:
    trunk = tiny_node(stage=tiny_stage(6))
    branch = tiny_node(id="branch", parent="trunk", stage_begin=trunk.end, begin=trunk.end, stage=tiny_stage(10))
    for one in (store, other):
        run(trunk, one)
    run(branch, store)
    with pytest.raises(Stopped):
        run(branch, other, stop_after=4)
    run(branch, other)
    assert_same(tensors(store, branch), tensors(other, branch))


@pytest.mark.parametrize("optimizer_state", ["carry", "reset"])
def test_the_stage_says_whether_moments_are_carried(store: Store, optimizer_state: str) -> None:
    trunk = tiny_node(stage=tiny_stage(6))
    branch = tiny_node(
        id="branch",
        parent="trunk",
        stage_begin=trunk.end,
        begin=trunk.end,
        stage=tiny_stage(4, optimizer_state=optimizer_state),
    )
    run(trunk, store)
    with pytest.raises(Stopped):  # the reset happens once, not at every resumption
        run(branch, store, stop_after=2)
    run(branch, store)
    assert tensors(store, branch)["step"].item() == (4 if optimizer_state == "reset" else 10)


def test_demanded_checkpoints_change_nothing_and_stay(store: Store, other: Store) -> None:
    node = tiny_node(checkpoint_every_tokens=3 * LENGTH)
    demanded = [boundary(node, 6), boundary(node, 18)]
    run(node, store)
    run(node, other, demanded)
    assert standing(store, node) == [node.end]
    assert standing(other, node) == [*demanded, node.end]
    assert_same(tensors(store, node), tensors(other, node))
    assert rows(store, node, "train") == rows(other, node, "train")
    heldout = rows(other, node, "heldout")
    assert [row["tokens"] for row in heldout[::4]] == [*demanded, node.end]
    assert [row["domain"] for row in heldout[:4]] == ["code", "general", "qa", "science"]
    for row in heldout:
        # In the tiny pool a token is a byte, but for the ends of documents.
        assert row["bits_per_byte"] == pytest.approx(row["loss"] / math.log(2), rel=0.1)
        assert row["sequences"] == 4


def test_a_finished_node_is_left_alone_and_a_new_demand_is_replayed(store: Store) -> None:
    node = tiny_node()
    run(node, store)
    end = tensors(store, node)
    assert run(node, store) == []
    point = boundary(node, 9)
    run(node, store, [point], attempt=2)
    assert standing(store, node) == [point, node.end]
    assert_same(end, tensors(store, node))
    (store.checkpoint(node.id, node.end) / "model.safetensors").write_bytes(b"rot")
    run(node, store, [point], attempt=3)
    assert_same(end, tensors(store, node))


def test_records_say_what_happened(store: Store) -> None:
    node = tiny_node()
    reports = run(node, store)
    records = [row for row in read(store.records(node.id)) if row["kind"] == "train"]
    assert [row["step"] for row in records] == [10, 20, 24]
    assert [row["tokens"] for row in records] == [boundary(node, step) for step in (10, 20, 24)]
    for row in records:
        assert {"loss", "lr", "grad_norm", "tokens_per_second", "batch", "loss/code", "loss/qa"} <= row.keys()
        assert row["grad_norm"] > 0 and row["tokens_per_second"] > 0 and 0 <= row["data_wait"] < 1
    assert records[0]["batch"] == 2 and records[1]["batch"] == 4
    assert records[0]["loss"] > records[-1]["loss"]
    assert records[0]["lr"] > records[-1]["lr"] > node.stage.lr.stop
    assert reports[-1][0] == node.end


def test_the_stage_says_whether_questions_count(store: Store) -> None:
    """Masked or not, a run reads the same text; only the loss over qa, and what is learned, differ."""
    first = {}
    for masked in (True, False):
        node = tiny_node(id=f"masked-{masked}", stage=tiny_stage(mask_questions=masked))
        run(node, store)
        first[masked] = rows(store, node, "train")[0]
    assert first[True]["tokens"] == first[False]["tokens"]
    assert first[True]["loss/qa"] != first[False]["loss/qa"]


def test_a_diverging_run_says_where(store: Store) -> None:
    stage = tiny_stage(lr={"shape": "constant", "start": 1e30})
    with pytest.raises(
        TrainingFailed, match=r"node trunk: .* at step \d+ \(\d+ tokens, learning rate 1e\+30\)"
    ) as told:
        run(tiny_node(stage=stage), store)
    assert isinstance(told.value, UserError) and "\n" not in str(told.value)


def test_mistakes_are_told(store: Store) -> None:
    orphan = tiny_node(id="branch", parent="trunk", stage_begin=640, begin=640)
    with pytest.raises(UserError, match=r"node branch starts from .*000000000000640, which is missing or damaged"):
        run(orphan, store)
    with pytest.raises(ValueError, match="no step boundary"):
        run(tiny_node(), store, [65])


def test_the_state_is_json_that_names_its_numerics(store: Store) -> None:
    node = tiny_node(stage=tiny_stage(4), model=tiny_model(layers=1).model_dump(mode="json"))
    run(node, store)
    state = json.loads((store.checkpoint(node.id, node.end) / "state.json").read_text())
    where = {"device", "torch", "cpu", "machine", "threads", "world"}
    assert state["numerics"].keys() == where | set(Execution.model_fields)
    assert state["numerics"]["threads"] == state["numerics"]["world"] == 1
    assert state["tokens"] == node.end and state["global_step"] == 4 and state["rolling"] is False
