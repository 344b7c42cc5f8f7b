"""Adaptive stages: when they end, what they read, and that a stretch trained again decides the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pools import DEPTH, SOURCES
from training_nodes import LENGTH, WEIGHTS, boundary, tiny_node, tiny_stage

from davinci.config import Node
from davinci.data.cards import read_card
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.model.weights import weights_digest
from davinci.proportions import integer_weights, source_shares
from davinci.realised import read_decisions
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import heldout
from davinci.training.checkpoints import read_state
from davinci.training.distributed import Ranks
from davinci.training.loop import Stopped, train

STEPS = 24
RATE = {"shape": "warmup_constant", "start": 3e-3, "warmup_tokens": 4 * LENGTH}
# Held-out loss falls by much more than this from check to check at first, and by less later on.
FIRES = {"domain": "code", "check_every": 4 * LENGTH, "window": 3, "min_slope": 0.07, "sequences": 8}
NEVER = FIRES | {"min_slope": 0.0}
MOVES = {"every": 8 * LENGTH, "window": 2, "sequences": 4}


class Killed(Exception):
    """A process that dies: nothing is written on the way out."""


def stage(**changes: Any) -> dict[str, Any]:
    return tiny_stage(STEPS, lr=RATE) | changes


def second(parent: Node, **changes: Any) -> Node:
    """A node that trains a stage after `parent`, where the plan has it."""
    begin = parent.end
    return tiny_node(id="second", parent=parent.id, stage_begin=begin, begin=begin, stage=stage(**changes))


def run(node: Node, store: Store, **options: Any) -> str:
    """Train `node`; the digest of its weights at the end."""
    given = {"checkpoints": [], "attempt": 1, "progress": lambda *_: None, "should_stop": lambda: False} | options
    train(node, store, **given)
    return digest(node, store)


def digest(node: Node, store: Store, tokens: int | None = None) -> str:
    return weights_digest(store.checkpoint(node.id, node.end if tokens is None else tokens))


def ended(node: Node, store: Store) -> int | None:
    decisions = read_decisions(store, node.id)
    assert decisions is not None
    return decisions.ended


def test_a_plateau_ends_the_stage_and_the_next_starts_from_there(store: Store) -> None:
    """And a fixed curriculum of the realised length gives the same weights, in both stages and in the same order."""
    node = tiny_node(stage=stage(until=FIRES))
    run(node, store)
    tokens = ended(node, store)
    assert tokens is not None and 12 * LENGTH <= tokens < node.end
    child = second(node)
    found = run(child, store)
    fixed = tiny_node(id="fixed", stage=stage(tokens=tokens))
    assert run(fixed, store) == digest(node, store)
    after = second(fixed).model_copy(update={"id": "after", "mixture_position": fixed.end // LENGTH})
    assert run(after, store) == found
    states = [read_state(store.checkpoint(one.id, one.end)) for one in (child, after)]
    assert states[0].cursors == states[1].cursors
    assert states[0].global_step == states[1].global_step
    trail = states[0].trail
    assert trail is not None and states[0].tokens - trail.skipped == states[1].tokens


def test_places_of_the_plan_behind_the_end_hold_the_state_the_stage_ended_with(store: Store) -> None:
    node = tiny_node(stage=stage(until=FIRES))
    places = [boundary(node, step) for step in (2, STEPS - 2)]
    run(node, store, checkpoints=places)
    assert digest(node, store, places[0]) != digest(node, store, places[1]) == digest(node, store)
    rows = read(store.records(node.id), "heldout")
    tokens = ended(node, store)
    assert {row["tokens"]: row.get("seen") for row in rows} == {places[0]: None, places[1]: tokens, node.end: tokens}


@pytest.mark.parametrize("averages", [{"kind": "polyak"}, {"kind": "ema", "half_life_tokens": 10 * LENGTH}])
def test_averages_count_what_was_seen_and_not_the_gap(store: Store, averages: dict[str, Any]) -> None:
    """Those of a stage that ended early, and of the one that carries them on, are those of a fixed curriculum."""
    node = tiny_node(stage=stage(until=FIRES, averages=averages))
    run(node, store, checkpoints=[boundary(node, STEPS - 1)])
    tokens = ended(node, store)
    assert tokens is not None
    fixed = tiny_node(id="fixed", stage=stage(tokens=tokens, averages=averages))
    run(fixed, store)
    child = second(node, averages=averages)
    after = second(fixed, averages=averages).model_copy(update={"id": "after", "mixture_position": fixed.end // LENGTH})
    run(child, store)
    run(after, store)
    for early, plain in ((node, fixed), (child, after)):
        folders = [store.checkpoint(one.id, one.end) for one in (early, plain)]
        found = [read_state(folder).digests for folder in folders]
        assert found[0] == found[1] and "average.safetensors" in found[0]
    gap = [store.checkpoint(node.id, place) for place in (boundary(node, STEPS - 1), node.end)]
    assert read_state(gap[0]).digests == read_state(gap[1]).digests


def test_probes_behind_the_end_are_of_the_state_the_stage_ended_with(store: Store) -> None:
    class Norm:
        """Something of the weights, every third step or so."""

        every_tokens, lacking = 7 * LENGTH, ()

        def score(self, model: Decoder, ranks: Ranks) -> list[dict[str, Any]]:
            return [{"capability": "norm", "accuracy": float(model.unembedding.detach().norm())}]

    node = tiny_node(stage=stage(until=FIRES))
    run(node, store, probes=[Norm()])
    tokens = ended(node, store)
    assert tokens is not None
    found = {row["tokens"]: row["accuracy"] for row in read(store.records(node.id), "probe")}
    assert list(found) == node.probed_at(Norm.every_tokens)
    behind = {score for place, score in found.items() if place >= tokens}
    before = {score for place, score in found.items() if place < tokens}
    assert len(behind) == 1 and len(before) > 2 and not before & behind
    fixed = tiny_node(id="fixed", stage=stage(tokens=tokens))
    run(fixed, store, probes=[Norm()])
    plain = {row["tokens"]: row["accuracy"] for row in read(store.records("fixed"), "probe")}
    assert {place: score for place, score in found.items() if place < tokens} == {
        place: score for place, score in plain.items() if place < tokens
    }


def test_a_plateau_that_never_comes_changes_nothing(store: Store) -> None:
    node = tiny_node(stage=stage(until=NEVER))
    assert run(node, store) == run(tiny_node(id="fixed", stage=stage()), store)
    assert ended(node, store) is None
    assert len(read(store.records(node.id), "until")) >= 6
    assert run(second(node), store) == digest(second(node), store)


@pytest.mark.parametrize("change", [{"until": FIRES}, {"adapt": MOVES}, {"until": FIRES, "adapt": MOVES}])
def test_a_killed_training_replays_what_it_decided(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """Killed right after its last decision, with no checkpoint behind it: what is decided is not measured again."""
    node = tiny_node(stage=stage(**change))
    wanted = run(node, store)
    decided = store.realised(node.id).read_bytes()
    other = Store(tmp_path / "other")
    other.root.mkdir()
    (other.root / "pools").symlink_to(store.root / "pools")
    checks = len(read(store.records(node.id), "until") + read(store.records(node.id), "adapt"))
    measured = heldout.measure

    def die(*given: Any) -> Any:
        if other.realised(node.id).is_file() and other.realised(node.id).read_bytes() == decided:
            raise Killed
        return measured(*given)

    with monkeypatch.context() as patch:
        patch.setattr("davinci.training.loop.heldout.measure", die)
        with pytest.raises(Killed):
            run(node, other)
    assert not other.checkpoint(node.id, node.end).exists()

    def measure(model: Any, held: Any, ranks: Any) -> Any:
        assert held.tokens.shape[0] not in (4, 8), "a decision was measured again"
        return measured(model, held, ranks)

    monkeypatch.setattr("davinci.training.loop.heldout.measure", measure)
    assert run(node, other, attempt=2) == wanted
    assert other.realised(node.id).read_bytes() == decided
    assert checks == len(read(other.records(node.id), "until") + read(other.records(node.id), "adapt"))


@pytest.mark.parametrize("change", [{"until": FIRES}, {"until": NEVER, "adapt": MOVES}])
def test_a_stage_stopped_at_every_step_decides_the_same(store: Store, change: dict[str, Any]) -> None:
    """Also inside a window, and in the middle of a mixture that moved; `stopped` loses its file of decisions too."""
    node = tiny_node(stage=stage(**change))
    wanted = run(node, store)
    stopped = node.model_copy(update={"id": "stopped"})
    for attempt in range(1, STEPS + 1):
        try:
            run(stopped, store, attempt=attempt, should_stop=lambda: True)
            break
        except Stopped:
            store.realised(stopped.id).unlink(missing_ok=True)
    assert attempt > 6
    assert digest(stopped, store) == wanted
    assert read_decisions(store, "stopped") == read_decisions(store, node.id)
    child, other = second(node), second(stopped).model_copy(update={"id": "other"})
    assert run(child, store) == run(other, store)


@pytest.mark.parametrize("cut", [2, 6, 9, 20])
def test_a_stage_cut_in_two_decides_the_same(store: Store, cut: int) -> None:
    """Before the plateau, at a check, and behind it, where nothing is left to train."""
    node = tiny_node(stage=stage(until=FIRES, adapt=MOVES))
    wanted = run(node, store)
    place = boundary(node, cut)
    first = tiny_node(id="first", stage=stage(until=FIRES, adapt=MOVES), end=place)
    rest = tiny_node(id="rest", parent="first", begin=place, stage=stage(until=FIRES, adapt=MOVES))
    run(first, store)
    assert run(rest, store) == wanted
    assert read_decisions(store, "rest") == read_decisions(store, node.id)


def test_a_mixture_moves_as_the_same_moves_fixed_in_advance(store: Store) -> None:
    """Every piece is the order of its own integer weights, and each source goes on where it stopped."""
    node = tiny_node(stage=stage(adapt=MOVES))
    wanted = run(node, store)
    decisions = read_decisions(store, node.id)
    assert decisions is not None and len(decisions.moves) >= 2
    for move in decisions.moves:
        assert sum(move.domains.values()) == pytest.approx(1)
        assert all(share > 0 for share in move.domains.values())
    pieces = [(0, dict(WEIGHTS))]
    for move in decisions.moves:
        pieces.append((move.tokens, integer_weights(move.domains, source_shares(node.sources))))
    parent = None
    for index, (begin, weights) in enumerate(pieces):
        end = pieces[index + 1][0] if index + 1 < len(pieces) else node.end
        piece = tiny_node(
            id=f"piece{index}",
            parent=parent,
            begin=begin,
            end=end,
            mixture_begin=begin,
            stage=stage(),
            sources={
                name: {"domain": SOURCES[name][0], "depth": DEPTH, "digest": None, "weight": weight}
                for name, weight in weights.items()
            },
        )
        found, parent = run(piece, store), piece.id
    assert found == wanted


def test_a_source_that_the_moved_mixture_exhausts_ends_the_run_and_nothing_is_lost(store: Store) -> None:
    node = tiny_node(stage=stage(adapt=MOVES))
    wanted = run(node, store)
    read_of = read_state(store.checkpoint(node.id, node.end)).read
    assert read_of is not None
    size = {name: read_card(store, node.pool).sources[name].variants[DEPTH].tokens for name in read_of}  # type: ignore
    limits = {"python": 0.8 * read_of["python"] / size["python"], "prose": 1.0}
    limited = node.model_copy(update={"id": "limited", "max_epochs": limits})
    said = r"the mixture moved, and source python is exhausted \d+ tokens into s: 0\.\d+ epochs of it are allowed"
    for _ in range(2):  # and again, with the same words
        with pytest.raises(UserError, match=said):
            run(limited, store)
    (kept,) = store.checkpoint("limited", 0).parent.iterdir()
    before = read_state(kept)
    assert 0 < before.tokens < node.end and before.read is not None
    assert before.read["python"] <= limits["python"] * size["python"] + 2 * LENGTH
    assert run(limited.model_copy(update={"max_epochs": {"python": 1.0}}), store, attempt=2) == wanted


def test_damaged_decisions_are_named(store: Store) -> None:
    node = tiny_node(stage=stage(until=FIRES))
    run(node, store)
    path = store.realised(node.id)
    data = json.loads(path.read_text())
    data["decisions"]["ended"] = LENGTH
    path.write_text(json.dumps(data))
    shutil.rmtree(store.checkpoint(node.id, node.end))
    with pytest.raises(UserError, match=r"realised.json: damaged .* restore it"):
        run(node, store)


def test_text_other_than_was_planned_to_be_watched_is_refused(store: Store) -> None:
    node = tiny_node(stage=stage(until=FIRES), watched={"code": "0" * 64})
    with pytest.raises(UserError, match="held-out text of code is not what node trunk was planned to watch"):
        run(node, store)
