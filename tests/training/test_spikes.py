"""Spikes: what counts as one, and that leaving them out is as exact as training is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pools import tiny_pool
from training_nodes import boundary, tiny_node, tiny_stage

from davinci.config import Node
from davinci.store import Store
from davinci.tracking.records import read
from davinci.training import loop, spikes
from davinci.training.checkpoints import read_state
from davinci.training.spikes import FEWEST, LONGEST, WINDOW, Detector, limit

values = st.floats(0.01, 100.0)
series = st.lists(st.tuples(values, values), max_size=3 * WINDOW)


def test_a_step_far_above_those_before_is_one() -> None:
    detector = Detector()
    for step in range(FEWEST):
        assert detector.see(3.0 + 0.01 * (step % 3), 1.0) is None
    found = detector.see(3.01, 1.5)
    assert found is not None and found.grad_norm > found.grad_norm_limit and found.loss < found.loss_limit
    assert detector.see(3.0, 1.0) is None
    assert detector.see(4.0, 1.0) is not None


def test_the_limit_by_hand() -> None:
    # Median 3, deviations 2 1 0 1 2 with median 1.
    assert limit([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(3 + 8 * 1.4826)
    # All alike: a hundredth of the median stands for the deviation.
    assert limit([2.0] * 6) == pytest.approx(2 * 1.08)


def test_a_new_level_is_told_ten_times_and_then_taken_for_granted() -> None:
    detector = Detector()
    for _ in range(WINDOW):
        detector.see(1.0, 1.0)
    told = [detector.see(2.0, 1.0) is not None for _ in range(WINDOW)]
    assert told == [True] * LONGEST + [False] * (WINDOW - LONGEST)


@given(series, st.integers(0, 3 * WINDOW))
def test_interrupting_changes_nothing(steps: list[tuple[float, float]], cut: int) -> None:
    whole, first = Detector(), Detector()
    expected = [whole.see(*step) for step in steps]
    found = [first.see(*step) for step in steps[:cut]]
    second = Detector.of(type(first.recent).model_validate_json(first.recent.model_dump_json()))
    assert found + [second.see(*step) for step in steps[cut:]] == expected
    assert len(whole.recent.loss) <= WINDOW


@given(st.lists(values, min_size=FEWEST, max_size=WINDOW), st.floats(0.1, 10.0))
def test_the_limit_scales_and_is_above_the_median(some: list[float], factor: float) -> None:
    assert limit([factor * one for one in some]) == pytest.approx(factor * limit(some))
    assert limit(some) > sorted(some)[(len(some) - 1) // 2]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of a tiny training's steps become spikes."""
    for name, value in {"FEWEST": 4, "DEVIATIONS": 0.5}.items():
        monkeypatch.setattr(spikes, name, value)


def _train(node: Node, store: Store, stops: tuple[int, ...] = ()) -> None:
    for attempt, stop in enumerate([*stops, 1 << 40], start=1):
        left = iter(range(stop - 1, -1, -1))
        try:
            loop.train(
                node,
                store,
                checkpoints=(),
                attempt=attempt,
                progress=lambda *_: None,
                should_stop=lambda left=left: not next(left),  # type: ignore[misc]
                heldout_sequences=1,
            )
        except loop.Stopped:
            assert attempt <= len(stops)


def _rows(node: Node, store: Store) -> list[dict[str, Any]]:
    clock = ("time", "tokens_per_second", "data_wait", "attempt")
    return [{name: row[name] for name in row if name not in clock} for row in read(store.records(node.id))]


def _weights(node: Node, store: Store) -> str:
    return read_state(store.checkpoint(node.id, node.end)).digests["model.safetensors"]


@pytest.mark.usefixtures("eager")
def test_skipping_is_exact_through_interruptions_and_cuts(store: Store, tmp_path: Path) -> None:
    optimizer = tiny_node().optimizer.model_dump(mode="json")
    skipping = tiny_node(id="skipping", optimizer=optimizer | {"spikes": "skip"})
    _train(tiny_node(id="reporting"), store)
    _train(skipping, store)
    told = [row for row in _rows(skipping, store) if row["kind"] == "spike"]
    assert told and all(row["skipped"] for row in told)
    assert any(row["kind"] == "spike" and not row["skipped"] for row in _rows(tiny_node(id="reporting"), store))
    assert _weights(skipping, store) != _weights(tiny_node(id="reporting"), store)

    other = Store(tmp_path / "other")
    tiny_pool(other, tokens=4_000)
    _train(skipping, other, stops=(3, 8, 4))
    assert (_rows(skipping, other), _weights(skipping, other)) == (_rows(skipping, store), _weights(skipping, store))

    middle = boundary(skipping, 9)
    first = skipping.model_copy(update={"id": "first", "end": middle})
    second = skipping.model_copy(update={"id": "second", "parent": "first", "begin": middle})
    for node in (first, second):
        _train(node, store)
    assert _weights(second, store) == _weights(skipping, store)
    cut = [row for node in (first, second) for row in _rows(node, store) if row["kind"] == "spike"]
    assert cut == told


@pytest.mark.usefixtures("eager")
def test_reporting_changes_no_weight(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = tiny_stage(steps=12)
    _train(tiny_node(id="told", stage=stage), store)
    monkeypatch.setattr(spikes, "FEWEST", 1 << 40)
    _train(tiny_node(id="untold", stage=stage), store)
    assert any(row["kind"] == "spike" for row in _rows(tiny_node(id="told", stage=stage), store))
    assert _weights(tiny_node(id="told", stage=stage), store) == _weights(tiny_node(id="untold", stage=stage), store)


def test_a_spike_says_what_exceeded_what() -> None:
    detector = Detector()
    for _ in range(FEWEST):
        detector.see(1.0, 1.0)
    found = detector.see(2.0, 1.0)
    assert found == replace(found, loss=2.0, grad_norm=1.0) and found.loss_limit == pytest.approx(1.08)
