"""Under FSDP2 a training is what it is under DDP and alone, to rounding; its checkpoints in parts serve any of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gang import Gang, joined
from pools import tiny_pool
from safetensors.torch import load_file
from training_nodes import LENGTH, tiny_model, tiny_node, tiny_stage

from davinci.config import Execution, Node
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.realised import read_decisions
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import checkpoints as saved
from davinci.training import heldout, loop, positions, sharded
from davinci.training.distributed import ALONE
from davinci.training.placement import place
from davinci.training.step import micro_rows

FSDP = Execution(parallel="fsdp")
STEPS = 16


def node(**changes: Any) -> Node:
    """Steps of 5 sequences: ranks have different numbers of rows. The stage keeps an average of the weights."""
    stage = tiny_stage(
        tokens=5 * STEPS * LENGTH,
        batch_size=[{"from_tokens": 0, "sequences": 5}],
        averages={"kind": "ema", "half_life_tokens": 20 * LENGTH},
    )
    return tiny_node(**({"stage": stage} | changes))


@pytest.fixture(scope="module")
def four() -> Iterator[Gang]:
    ranks = Gang(4)
    yield ranks
    ranks.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    tiny_pool(store, tokens=4_000)
    return store


def work(ranks: Any, one: Node, root: Path, execution: Execution, stop: int | None) -> str:
    """Train on this rank, until `stop` steps are done, if it says so; how that ended."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop

    try:
        loop.train(
            one,
            Store(root),
            checkpoints=(),
            attempt=1,
            progress=lambda *_: None,
            should_stop=should_stop,
            heldout_sequences=4,
            benchmark=next_letter if ranks.is_first and one.benchmark else None,
            ranks=ranks,
            execution=execution,
        )
    except loop.Stopped:
        return "stopped"
    return "done"


def run(four: Gang, world: int, store: Store, one: Node, execution: Execution = FSDP, stop: int | None = None) -> None:
    answers = (
        [work(ALONE, one, store.root, execution, stop)]
        if world == 1
        else four.run(world, joined, work, one, store.root, execution, stop)
    )
    assert answers == ["stopped" if stop else "done"] * world


def fresh(store: Store, name: str) -> Store:
    """Another store with the same pool."""
    other = Store(store.root.parent / name)
    other.root.mkdir()
    (other.root / "pools").symlink_to(store.root / "pools")
    return other


def tensors(store: Store, one: Node) -> dict[str, torch.Tensor]:
    folder = store.checkpoint(one.id, one.end)
    assert saved.is_valid(folder)
    files = ("model", "optimizer", "average")
    return {
        f"{file}/{name}": tensor for file in files for name, tensor in load_file(folder / f"{file}.safetensors").items()
    }


def losses(store: Store, one: Node) -> list[float]:
    rows = read(store.records(one.id))
    assert {row["kind"] for row in rows} >= {"train", "heldout", "heldout_average"}
    return [row[name] for row in rows for name in ("loss", "grad_norm", "update_ratio") if name in row]


def assert_close(first: Store, second: Store, one: Node) -> None:
    assert losses(second, one) == pytest.approx(losses(first, one), rel=1e-5)
    found = tensors(second, one)
    for name, tensor in tensors(first, one).items():
        torch.testing.assert_close(found[name], tensor, rtol=0.0, atol=2e-5)


def assert_same(first: Store, second: Store, one: Node) -> None:
    found = tensors(second, one)
    for name, tensor in tensors(first, one).items():
        assert torch.equal(found[name], tensor), name
    assert losses(first, one) == losses(second, one)


def test_the_same_as_ddp_and_alone_and_from_two_ranks_to_four_to_one(four: Gang, store: Store) -> None:
    one = node()
    run(four, 1, store, one)
    moved = fresh(store, "moved")
    run(four, 2, moved, one, stop=4)
    assert saved.is_sharded(next(moved.checkpoint(one.id, 0).parent.iterdir()))
    run(four, 4, moved, one, stop=4)
    run(four, 2, moved, one, Execution(), stop=4)  # ddp
    run(four, 1, moved, one)
    assert_close(store, moved, one)
    whole = fresh(store, "whole")
    run(four, 4, whole, one)
    assert_close(store, whole, one)
    state = saved.read_state(whole.checkpoint(one.id, one.end))
    assert (state.numerics["parallel"], state.numerics["world"]) == ("fsdp", 4)


def test_under_mup_too(four: Gang, store: Store) -> None:
    """Its groups of parameters are found by names, and its factors stand in what every rank computes."""
    mup = tiny_model(parametrisation={"kind": "mup", "base_width": 8, "base_head_dim": 4})
    stage = tiny_stage(tokens=20 * LENGTH, batch_size=[{"from_tokens": 0, "sequences": 5}], averages={"kind": "polyak"})
    one = node(stage=stage, model=mup.model_dump(mode="json"))
    run(four, 1, store, one)
    for name, execution in {"fsdp": FSDP, "ddp": Execution()}.items():
        other = fresh(store, name)
        run(four, 2, other, one, execution)
        assert_close(store, other, one)


def test_interrupted_and_resumed_equals_uninterrupted(four: Gang, store: Store) -> None:
    """Checkpoints are written meanwhile, which shows in no bit."""
    one = node()
    run(four, 2, store, one)
    other = fresh(store, "other")
    often = node(checkpoint_every_tokens=2 * 5 * LENGTH)
    run(four, 2, other, often, stop=7)
    run(four, 2, other, often, stop=3)
    run(four, 2, other, often)
    assert [path.name for path in other.checkpoint(one.id, 0).parent.iterdir()] == [f"{one.end:015d}"]
    assert_same(store, other, one)


def test_a_damaged_part_makes_the_one_before_count(four: Gang, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one = node()
    run(four, 2, store, one, stop=3)
    (older,) = store.checkpoint(one.id, 0).parent.iterdir()
    state = json.loads((older / "state.json").read_text())
    kept = state | {"rolling": False}
    (older / "state.json").write_text(json.dumps(kept))
    run(four, 2, store, one, stop=3)
    newer = max(store.checkpoint(one.id, 0).parent.iterdir())
    assert saved.newest(store, one.id, 0, one.end) == newer != older
    part = next(newer.glob("*_0.distcp"))
    os.truncate(part, part.stat().st_size // 2)
    assert saved.newest(store, one.id, 0, one.end) == older
    run(four, 1, store, one)


def test_an_index_that_is_not_ours_is_never_loaded(four: Gang, store: Store) -> None:
    one = node()
    run(four, 2, store, one, stop=3)
    (folder,) = store.checkpoint(one.id, 0).parent.iterdir()
    assert saved.can_resume(folder)
    (folder / ".metadata").chmod(0o666)
    assert not saved.can_resume(folder)
    position = positions.Position(0, folder=folder)
    with pytest.raises(UserError, match=r"\.metadata: belongs to user .* or anyone may change it; not loaded"):
        positions.load(position, one)


@pytest.mark.parametrize("world", [2, 3])
def test_a_held_out_loss_whose_parts_the_ranks_cannot_share_evenly(four: Gang, store: Store, world: int) -> None:
    """Five parts: some ranks have one less, and all the same take part in as many passes. The same bits on each."""
    found = four.run(world, joined, unevenly_measured, node(), FSDP)
    whole = unevenly_measured(ALONE, node(), Execution())
    assert whole["sequences"] == 4 * micro_rows(LENGTH) + 7
    assert all(one == found[0] for one in found), found
    assert found[0] == pytest.approx(whole, rel=1e-6)
    ddp = four.run(world, joined, unevenly_measured, node(), Execution())
    assert all(one == whole for one in ddp), ddp


def unevenly_measured(ranks: Any, one: Node, execution: Execution) -> dict[str, float | int]:
    placed = place(one, positions.Position(0, average_begin=0), ranks, execution)
    count = 4 * micro_rows(LENGTH) + 7
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, one.vocab_size, (count, LENGTH + 1), generator=generator)
    return heldout.measure(placed.bare, heldout.HeldOut("code", tokens, count * LENGTH), ranks)


@pytest.mark.parametrize("execution", [Execution(), FSDP], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("averages", [{"kind": "polyak"}, {"kind": "ema", "half_life_tokens": 20 * LENGTH}])
def test_averages_of_an_adaptive_stage_agree_across_ranks(
    four: Gang, store: Store, execution: Execution, averages: dict[str, Any]
) -> None:
    """It ends when a benchmark says so, of which only the first rank knows."""
    stage = tiny_stage(
        tokens=5 * STEPS * LENGTH,
        batch_size=[{"from_tokens": 0, "sequences": 5}],
        lr={"shape": "constant", "start": 1e-3},
        averages=averages,
        until={"metric": "benchmark", "benchmark": "next", "check_every": 15 * LENGTH, "window": 3, "min_slope": 2.0},
    )
    suite = {"suite": "s", "harness": "embedded", "at": [], "limit": None, "heldout_sequences": 2}
    task = {"domain": "code", "task": "next", "protocol": "ppl", "num_fewshot": 0, "metric": "acc"}
    one = node(stage=stage, benchmark=suite | {"benchmarks": {"next": task}})
    run(four, 1, store, one)
    split = fresh(store, "split")
    run(four, 2, split, one, execution)
    decisions = read_decisions(store, one.id)
    assert decisions is not None and decisions.ended == 45 * LENGTH
    again = read_decisions(split, one.id)
    assert again is not None and again.ended == decisions.ended
    scores = [[check.score for check in made.until] for made in (decisions, again)]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)
    assert_close(store, split, one)


@torch.no_grad()
def next_letter(model: Decoder) -> float:
    """How often the model says the next letter of the alphabet."""
    letters = (torch.arange(400) % 26 + 66).view(-1, 20)
    return float((model.logits(model.hidden(letters[:, :-1])).argmax(dim=-1) == letters[:, 1:]).double().mean())


def test_bfloat16_keeps_float32_masters(four: Gang, store: Store) -> None:
    """Weights are rounded where they are used: losses differ by about its eight bits, and no more than from float32."""
    one = node(model=tiny_model(precision="bfloat16").model_dump(mode="json"))
    run(four, 1, store, one)
    split = fresh(store, "split")
    run(four, 2, split, one)
    assert losses(split, one)[0] == pytest.approx(losses(store, one)[0], rel=2e-3)
    for tensor in tensors(split, one).values():
        assert tensor.dtype == torch.float32
    weights = tensors(split, one)["model/model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(weights, weights.bfloat16().float())


def test_a_part_that_cannot_be_written_is_told(four: Gang, store: Store, tmp_path: Path) -> None:
    for answer in four.run(2, joined, unwritable, tmp_path / "file"):
        assert answer == "OSError"


def unwritable(ranks: Any, file: Path) -> str:
    if ranks.is_first:
        file.write_text("no folder")
    ranks.barrier()
    background = sharded.Background()
    try:
        background.start(file / "1", {"a": torch.zeros(3)}, None)
        background.wait()
    except OSError as error:
        return type(error).__name__
    finally:
        background.close()
    return "written"
