"""Several ranks train a node as one would: the same data in the same order, the same losses up to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranked
import torch
from gang import Gang, joined
from pools import tiny_pool
from ranked import Trained
from safetensors.torch import load_file
from training_nodes import LENGTH, tiny_model, tiny_node, tiny_stage

from davinci.config import Node
from davinci.data.batches import Batch
from davinci.errors import RankLost, UserError
from davinci.model.decoder import Decoder
from davinci.realised import read_decisions
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import checkpoints as saved
from davinci.training import distributed
from davinci.training import step as steps
from davinci.training.distributed import ALONE, Ranks, join

STEPS = 24
# Largest differences between 1, 2 and 4 ranks measured: 9e-9 of a loss, 1.6e-7 of a gradient norm, 2.2e-6 in a weight
# (Adam moves each by up to 3e-3 a step).
NUMBERS = {"rel": 1e-6}
WEIGHTS = {"rtol": 0.0, "atol": 2e-5}


def node(**changes: Any) -> Node:
    """Steps of 4, then 6 sequences: 4 ranks have different numbers of rows, and of targets."""
    sizes = [{"from_tokens": 0, "sequences": 4}, {"from_tokens": 4 * 12 * LENGTH, "sequences": 6}]
    stage = tiny_stage(tokens=(4 + 6) * 12 * LENGTH, batch_size=sizes)
    return tiny_node(**({"stage": stage} | changes))


@pytest.fixture(scope="module")
def four() -> Iterator[Gang]:
    ranks = Gang(4)
    yield ranks
    ranks.close()


@pytest.fixture
def stores(tmp_path: Path) -> dict[int, Store]:
    """A store for each number of ranks."""
    made = {world: Store(tmp_path / str(world)) for world in (1, 2, 4)}
    for store in made.values():
        tiny_pool(store, tokens=4_000)
    return made


def run(
    four: Gang, world: int, store: Store, one: Node, attempt: int = 1, stop: tuple[int, int] | None = None
) -> list[Trained]:
    if world == 1:
        return [ranked.train(ALONE, one, store.root, attempt, stop)]
    found: list[Trained] = four.run(world, joined, ranked.train, one, store.root, attempt, stop)
    for answer in found:
        if isinstance(answer, BaseException):
            raise answer
    return found


def order(seen: list[Trained]) -> list[list[str]]:
    """The rows of each step's batch, put together from what every rank read."""
    steps = []
    for parts in zip(*(one.rows for one in seen), strict=True):
        whole = [""] * sum(len(part) for part in parts)
        for rank, part in enumerate(parts):
            whole[rank :: len(parts)] = part
        steps.append(whole)
    return steps


def tensors(store: Store, one: Node) -> dict[str, torch.Tensor]:
    folder = store.checkpoint(one.id, one.end)
    assert saved.is_valid(folder)
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found | load_file(folder / "optimizer.safetensors")


def rows(store: Store, one: Node, kind: str) -> list[dict[str, Any]]:
    """Rows of a kind without what depends on the clock, the attempt or the ranks."""
    skipped = ("time", "tokens_per_second", "data_wait", "attempt", "world")
    found = [row for row in read(store.records(one.id)) if row["kind"] == kind]
    return [{name: value for name, value in row.items() if name not in skipped} for row in found]


def assert_close(first: Store, second: Store, one: Node) -> None:
    weights = tensors(second, one)
    for name, value in tensors(first, one).items():
        torch.testing.assert_close(weights[name], value, **WEIGHTS)
    for kind in ("train", "heldout"):
        wanted = rows(first, one, kind)
        assert wanted
        for row, other in zip(wanted, rows(second, one, kind), strict=True):
            assert row.keys() == other.keys()
            for name, value in row.items():
                assert other[name] == (pytest.approx(value, **NUMBERS) if isinstance(value, float) else value), name


def test_any_number_of_ranks_sees_the_same_data_and_learns_the_same(four: Gang, stores: dict[int, Store]) -> None:
    one = node()
    seen = {world: run(four, world, store, one) for world, store in stores.items()}
    assert len(seen[1][0].rows) == STEPS
    for world in (2, 4):
        assert order(seen[world]) == seen[1][0].rows
        assert_close(stores[1], stores[world], one)
        assert {row["world"] for row in read(stores[world].records(one.id))} == {world}
        state = saved.read_state(stores[world].checkpoint(one.id, one.end))
        alone = saved.read_state(stores[1].checkpoint(one.id, one.end))
        assert (state.numerics["world"], alone.numerics["world"]) == (world, 1)
        assert state.cursors == alone.cursors
        assert not any(part.progress for part in seen[world][1:]), "only the first rank reports"
    assert not any("world" in row for row in read(stores[1].records(one.id)))


@pytest.mark.parametrize("world", [2, 4])
def test_interrupted_and_resumed_equals_uninterrupted(
    four: Gang, stores: dict[int, Store], tmp_path: Path, world: int
) -> None:
    """Whichever rank is asked to stop, all do after the same step, and none of it shows in a single bit."""
    one = node()
    run(four, world, stores[world], one)
    other = stores[1]
    for attempt, stop in enumerate([(world - 1, 7), (0, 9)], start=1):
        seen = run(four, world, other, one, attempt, stop)
        assert {part.error for part in seen} == {("Stopped", seen[0].error[1])}  # type: ignore[index]
        assert {len(part.rows) for part in seen} == {stop[1]}
    run(four, world, other, one, attempt=3)
    wanted = tensors(stores[world], one)
    for name, value in tensors(other, one).items():
        assert torch.equal(value, wanted[name]), name
    for kind in ("train", "heldout"):
        assert rows(other, one, kind) == rows(stores[world], one, kind)


def test_a_node_moves_from_two_ranks_to_four_to_one(four: Gang, stores: dict[int, Store]) -> None:
    one = node()
    whole = run(four, 1, stores[1], one)
    moved = [
        run(four, 2, stores[2], one, 1, (1, 5)),
        run(four, 4, stores[2], one, 2, (3, 11)),
        run(four, 1, stores[2], one, 3),
    ]
    assert [step for part in moved for step in order(part)] == whole[0].rows
    assert_close(stores[1], stores[2], one)


def test_a_stage_goes_on_from_its_parent(four: Gang, stores: dict[int, Store]) -> None:
    """Moments and cursors of a checkpoint that other ranks wrote reach every rank."""
    trunk = node()
    branch = node(id="branch", parent="trunk", stage_begin=trunk.end, begin=trunk.end)
    run(four, 1, stores[1], trunk)
    run(four, 2, stores[2], trunk)
    assert order(run(four, 4, stores[2], branch)) == run(four, 1, stores[1], branch)[0].rows
    assert_close(stores[1], stores[2], branch)


def test_ranks_decide_alike(four: Gang, stores: dict[int, Store]) -> None:
    """An adaptive stage reads and ends alike on any number of ranks; a training of others replays it."""
    until = {"domain": "code", "check_every": 12 * LENGTH, "window": 3, "min_slope": 1.0, "min_tokens": 60 * LENGTH}
    rules = {"until": until | {"sequences": 8}, "adapt": {"every": 16 * LENGTH, "window": 2, "sequences": 4}}
    constant = {"shape": "constant", "start": 3e-3, "stop": None, "warmup_tokens": 0}
    one = node()
    stage = one.stage.model_dump(mode="json") | rules
    one = tiny_node(stage=stage | {"lr": stage["lr"] | constant})
    seen = {world: run(four, world, stores[world], one) for world in (1, 2)}
    assert order(seen[2]) == seen[1][0].rows
    decisions = [read_decisions(stores[world], one.id) for world in (1, 2)]
    assert decisions[0] is not None and decisions[1] is not None
    assert decisions[0].ended == decisions[1].ended is not None and decisions[0].moves
    assert_close(stores[1], stores[2], one)


def test_more_ranks_than_sequences_are_refused(four: Gang, stores: dict[int, Store]) -> None:
    few = tiny_node()
    seen = run(four, 4, stores[4], few)
    assert {part.error for part in seen} == {
        (
            "UserError",
            "node trunk: 4 ranks, but stage s has steps of 2 sequences; start at most 2 "
            "(cluster.nodes x cluster.tasks_per_node)",
        )
    }
    assert not stores[4].node(few.id).exists()


def test_a_loss_that_is_no_number_fails_all_ranks_alike(four: Gang, stores: dict[int, Store]) -> None:
    wild = node(stage=tiny_stage(lr={"shape": "constant", "start": 1e30}))
    (error,) = {part.error for part in run(four, 2, stores[2], wild)}
    assert error is not None and error[0] == "TrainingFailed" and "nan" in error[1]


def uneven_gradient(ranks: Ranks) -> tuple[float, float, list[float], dict[str, torch.Tensor]]:
    """Of five rows in parts of two: two ranks pass three and two rows on in two parts and in one, and the second rank
    has no target."""
    decoder = Decoder(tiny_model(), tiny_model().vocab_size)
    decoder.initialise(3 + ranks.rank)  # the first rank's weights count
    generator = np.random.default_rng(0)
    tokens, mask = generator.integers(0, 257, (5, LENGTH + 1)), generator.random((5, LENGTH)) > 0.3
    mask[1::2] = False
    part = slice(ranks.rank, None, ranks.world)
    batch = Batch(tokens[part], mask[part], np.arange(5)[part])
    objective = ranks.wrap(steps.Objective(decoder), steps.EXAMPLE)
    for _ in range(2):  # the second time, what the first left must be gone
        outcome = steps.gradients(objective, batch, 1e9, ranks, 5, 2 * LENGTH)
    assert outcome.domain.tolist() == [0, 1, 2, 3, 4]
    found = {name: one.grad.clone() for name, one in decoder.named_parameters() if one.grad is not None}
    return outcome.loss, outcome.gradient_norm, outcome.nats.tolist(), found


def test_the_gradient_is_that_of_the_whole_batchs_mean(four: Gang) -> None:
    loss, norm, nats, wanted = uneven_gradient(ALONE)
    for answer in four.run(2, joined, uneven_gradient):
        assert answer[0] == pytest.approx(loss, rel=1e-6) and answer[1] == pytest.approx(norm, rel=1e-5)
        assert answer[2] == pytest.approx(nats, rel=1e-6)
        assert answer[3].keys() == wanted.keys()
        for name, gradient in answer[3].items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-7)


def leaves(ranks: Ranks, who: int, words: str | None) -> str:
    """One rank leaves, with words or without, when all have joined; what the others are told."""
    ranks.barrier()
    if ranks.rank == who:
        if words is not None:
            ranks.leave(words)
        return "left"
    try:
        with ranks.blamed():
            ranks.any(False)
    except (UserError, RankLost) as error:
        with pytest.MonkeyPatch.context() as patch:
            if words is None:  # Nobody is left who could hear.
                patch.setattr(distributed, "HEARING", timedelta(milliseconds=100))
            ranks.leave("not the first to leave")
        return f"{type(error).__name__}: {error}"
    return "nothing happened"


@pytest.mark.parametrize("who", [0, 2])
def test_the_others_are_told_why_a_rank_leaves(four: Gang, who: int) -> None:
    told = four.run(3, joined, leaves, who, "the disk is on fire")
    assert told.pop(who) == "left"
    assert told == ["UserError: the disk is on fire"] * 2


@pytest.mark.parametrize("who", [0, 1])
def test_a_rank_that_leaves_without_a_word_is_lost(four: Gang, who: int) -> None:
    told = four.run(2, joined, leaves, who, None)
    assert told[1 - who] == f"RankLost: rank {1 - who}: another rank ended without a word"


def drifted(ranks: Ranks) -> None:
    module = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(module.weight, 1.0 if ranks.rank < 3 else 1.0000001)
    torch.nn.init.zeros_(module.bias)
    ranks.require_same(module, "node x")


def test_ranks_that_drift_apart_are_noticed(four: Gang) -> None:
    for answer in four.run(4, joined, drifted):
        assert isinstance(answer, RuntimeError) and "node x: the ranks' weights differ" in str(answer)


def test_alone_nothing_is_joined() -> None:
    for environment in ({}, {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}, {"SLURM_STEP_NUM_TASKS": "1"}):
        with join(environment) as ranks:
            assert ranks is ALONE
    assert not torch.distributed.is_initialized()


def test_half_an_environment_is_a_clear_mistake() -> None:
    with (
        pytest.raises(UserError, match=r"RANK is set but WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not"),
        join({"RANK": "0"}),
    ):
        pass
