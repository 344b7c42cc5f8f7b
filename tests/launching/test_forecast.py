"""Speeds from records, and the tree played through with them."""

from __future__ import annotations

from pathlib import Path

import launch_fakes
import pytest

from davinci.launching.forecast import TAIL_BYTES, Pace, finish_times, tail
from davinci.planning.plan import Chain
from davinci.tracking.records import Writer


def chains(*pairs: tuple[str, str | None]) -> list[Chain]:
    return [Chain(name=name, nodes=(name,), after=after) for name, after in pairs]


def test_children_wait_for_parents_and_for_a_worker() -> None:
    tree = chains(("trunk", None), ("a", "trunk"), ("b", "trunk"), ("c", "trunk"))
    seconds = {"trunk": 10.0, "a": 1.0, "b": 5.0, "c": 2.0}
    assert finish_times(tree, seconds, [], 2) == {"trunk": 10.0, "b": 15.0, "c": 12.0, "a": 13.0}
    assert finish_times(tree, seconds, [], 9)["a"] == 11.0


def test_what_is_done_takes_no_time_and_what_runs_comes_first() -> None:
    tree = chains(("done", None), ("short", "done"), ("long", "done"))
    seconds = {"done": 0.0, "short": 1.0, "long": 9.0}
    assert finish_times(tree, seconds, ["short"], 1) == {"done": 0.0, "short": 1.0, "long": 10.0}
    assert finish_times(tree, seconds, ["short", "long"], 1) == {"done": 0.0, "short": 1.0, "long": 9.0}, "both do run"


def test_speed_of_the_newest_rows(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with Writer(path, 1) as records:
        for step in range(1, 9):
            records.write("train", 8 * step, step, loss=1.0, tokens_per_second=100.0 if step > 3 else 1.0)
    with path.open("a") as file:
        file.write('{"kind": "train", "tok')
    found = tail(path)
    assert (found.tokens, found.speed, found.evaluations) == (64, 100.0, ())
    assert tail(tmp_path / "none").tokens is None


def test_only_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("x" * 2 * TAIL_BYTES + "\n")
    with Writer(path, 1) as records:
        records.write("train", 8, 1, tokens_per_second=5.0)
    assert tail(path).speed == 5.0


def test_seconds_of_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 130.0, 130.1, 190.0, 190.1, 400.0])
    monkeypatch.setattr("davinci.tracking.records.time.time", lambda: next(now))
    with Writer(tmp_path / "records.jsonl", 1) as records:
        records.write("train", 8, 1)
        for tokens in (8, 16):
            for benchmark in "ab":
                records.write("evaluation", tokens, 1, benchmark=benchmark, suite="s")
    with Writer(tmp_path / "records.jsonl", 2) as records:  # Another attempt: who knows what was between.
        records.write("evaluation", 24, 1, benchmark="a", suite="s")
    assert [(suite, round(seconds)) for suite, seconds in tail(tmp_path / "records.jsonl").evaluations] == [
        ("s", 30),
        ("s", 60),
    ]


def test_a_larger_model_is_slower_by_its_flops(tmp_path: Path) -> None:
    plan = launch_fakes.make_plan()
    node = plan.nodes["a-s0"]
    with Writer(tmp_path / "records.jsonl", 1) as records:
        records.write("train", 8, 1, tokens_per_second=10.0)
    pace = Pace()
    assert not pace.known
    pace.learn(node, tail(tmp_path / "records.jsonl"))
    assert pace.known and pace.training(node, 50) == 5.0
    larger = node.model_copy(update={"model": node.model.model_copy(update={"layers": 3})})
    assert pace.training(larger, 50) > 5.0
    assert pace.evaluating("any") == 0.0
