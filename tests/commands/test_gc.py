"""``gc``: what is needed by any launched sweep of the store stays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

import launch_fakes
import pytest

from davinci.__main__ import main
from davinci.commands import gc as gc_command
from davinci.launching import superfluous as module
from davinci.launching.lock import Lock
from davinci.launching.reconcile import checkpoints, plan_remaining
from davinci.launching.superfluous import remove, superfluous
from davinci.planning.plan import Plan, load_plan
from davinci.store import Store
from davinci.tracking.records import read

Work = Callable[[Plan, Store, Sequence[str]], None]


def could_go(store: Store) -> list[tuple[str, int, str]]:
    return [(one.node, one.tokens, one.why) for one in superfluous(store)]


def is_finished(store: Store, sweep: str, node: str) -> bool:
    return plan_remaining(load_plan(store, sweep), store)[node].finished


def test_middles_of_finished_nodes_could_go(store: Store) -> None:
    # c0-s0 is evaluated at 200 and 240; the fake trainer also leaves what it wrote on its way.
    assert checkpoints("c0-s0", store) == [168, 192, 200, 216, 240]
    assert [tokens for node, tokens, _ in could_go(store) if node == "c0-s0"] == [168, 192, 200, 216]
    ends = {node.id: node.end for node in load_plan(store, "fake").nodes.values()}
    assert all(ends[node] != tokens for node, tokens, _ in could_go(store))


def test_what_was_removed_is_not_missed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    gone = could_go(store)
    assert main(["gc", "--yes", "--store", str(store.root)]) == 0
    assert f"removed {len(gone)} checkpoints" in capsys.readouterr().out
    assert could_go(store) == []
    assert checkpoints("c0-s0", store) == [240]
    assert all(is_finished(store, "fake", node) for node in ("a-s0", "b-s0", "c0-s0"))
    assert main(["gc", "--store", str(store.root)]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_an_unfinished_node_keeps_everything(store: Store) -> None:
    (store.node("c0-s0") / "done.json").unlink()
    assert {node for node, _, _ in could_go(store)} == {"a-s0", "b-s0"}


def test_a_missing_evaluation_keeps_its_checkpoint(store: Store) -> None:
    for path in (store.node("c0-s0") / "evaluations").iterdir():
        path.unlink()
    assert {node for node, _, _ in could_go(store)} == {"a-s0", "b-s0"}


def test_what_another_sweep_needs_stays(store: Store, work: Work) -> None:
    # It asks arm0 for an evaluation at 216 which nobody made.
    work(launch_fakes.make_plan(points=(56,)).model_copy(update={"sweep": "other"}), store, [])
    assert "c0-s0" not in {node for node, _, _ in could_go(store)}


def test_nodes_no_sweep_names(store: Store, work: Work) -> None:
    work(launch_fakes.make_plan(arms=1), store, [])
    work(launch_fakes.make_plan(arms=1).model_copy(update={"sweep": "other"}), store, [])
    assert "no sweep" not in {why for _, _, why in could_go(store)}
    for path in (store.root / "sweeps").glob("*/launched.json"):
        path.unlink()
    left = could_go(store)
    assert {(node, why) for node, _, why in left} == {(node, "no sweep") for node in ("a-s0", "b-s0", "c0-s0")}
    gone, freed = remove(superfluous(store), store)
    assert len(gone) == len(left) and freed > 0
    assert not (store.node("c0-s0") / "done.json").exists(), "without its end it is not done"


def test_a_plan_that_cannot_be_read_stops_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (store.sweep("broken")).mkdir()
    (store.sweep("broken") / "launched.json").write_text("{}")
    assert main(["gc", "--yes", "--store", str(store.root)]) == 2
    assert "broken" in capsys.readouterr().err
    assert len(checkpoints("c0-s0", store)) == 5


def test_a_node_in_hands_is_left_alone(store: Store) -> None:
    listed = superfluous(store)
    with Lock(store.node("c0-s0")):
        assert "c0-s0" not in {node for node, _, _ in could_go(store)}
        gone, _ = remove(listed, store)
    assert "c0-s0" not in {one.node for one in gone} and gone
    assert len(checkpoints("c0-s0", store)) == 5


def test_a_sweep_launched_meanwhile_is_heard(store: Store, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = superfluous(store)
    real = module.Lock

    def launch_first(folder: object, **options: object) -> object:
        work(launch_fakes.make_plan(points=(56,)).model_copy(update={"sweep": "other"}), store, [])
        monkeypatch.setattr(module, "Lock", real)
        return real(folder, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "Lock", launch_first)
    gone, _ = remove(listed, store)
    assert "c0-s0" not in {one.node for one in gone}
    assert len(checkpoints("c0-s0", store)) == 5


def test_asks_first(store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(could_go(store))
    assert main(["gc", "--store", str(store.root)]) == 0
    assert capsys.readouterr().out.endswith("nothing removed: add --yes to remove them\n")
    monkeypatch.setattr(gc_command.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(gc_command.sys.stdout, "isatty", lambda: True, raising=False)
    for answer, left in (("", count), ("no", count), ("y", 0)):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        assert main(["gc", "--store", str(store.root)]) == 0
        assert len(could_go(store)) == left


def test_json_lists_and_removes_only_with_yes(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--json", "--store", str(store.root)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["removed"] == 0 and listed["bytes"] > 0 and listed["bytes_freed"] == 0
    assert main(["gc", "--json", "--yes", "--store", str(store.root)]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["removed"] == len(listed["checkpoints"]) and done["bytes_freed"] == listed["bytes"]


def test_a_file_with_another_name_frees_nothing(store: Store) -> None:
    (first, *_) = superfluous(store)
    before = module.bytes_freed([first])
    weights = store.checkpoint(first.node, first.tokens) / "model.safetensors"
    os.link(weights, store.root / "elsewhere")
    assert module.bytes_freed([first]) == before - weights.stat().st_size


def test_a_sweep_that_keeps_all_keeps_what_it_asked_for(store: Store, work: Work) -> None:
    """Of c0-s0 it asked for the state at 200; the others are there by chance."""
    work(launch_fakes.make_plan(evaluation={"keep": "all"}), store, [])
    assert [tokens for node, tokens, _ in could_go(store) if node == "c0-s0"] == [168, 192, 216]


def test_a_sweep_that_keeps_the_last_prunes_after_evaluation(store: Store, work: Work) -> None:
    work(launch_fakes.make_plan(evaluation={"keep": "last"}), store, ["c1-s0"])
    assert 200 not in checkpoints("c1-s0", store) and checkpoints("c1-s0", store)[-1] == 240
    assert is_finished(store, "fake", "c1-s0")
    assert {row["tokens"] for row in read(store.records("c1-s0"), "evaluation")} == {200, 240}


def test_another_sweeps_word_for_a_checkpoint_stands(store: Store, work: Work) -> None:
    work(launch_fakes.make_plan().model_copy(update={"sweep": "other"}), store, [])
    work(launch_fakes.make_plan(evaluation={"keep": "last"}), store, ["c1-s0"])
    assert 200 in checkpoints("c1-s0", store)
