"""Records as arrays: what the row-by-row reading says, whatever a crash or another version left, and read once."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated_store import fabricate
from hypothesis import given
from hypothesis import strategies as some

from analysis import readers
from analysis.findings import study
from analysis.kept import Piece, read_files
from analysis.load import load
from analysis.node_records import parse, read_nodes
from analysis.readers import Others
from davinci.accounting import machine
from davinci.store import Store
from davinci.tracking import history, records
from davinci.tracking.records import Writer

SWEEP = "qa_ratio"
ARMS = {"QA-30%": 0.0, "QA-70%": 1.0}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fabricate(tmp_path, arms=ARMS, seeds=(0, 1), items=20)


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(lines))


numbers = some.one_of(some.none(), some.floats(allow_nan=False, width=32), some.integers(-5, 5), some.booleans())
rows = some.fixed_dictionaries(
    {
        "kind": some.sampled_from(["train", "train", "train", "heldout", "spike", "later"]),
        "attempt": some.integers(1, 3),
        "tokens": some.integers(0, 6).map(lambda step: step * 10),
    },
    optional={"loss": numbers, "loss/code": numbers, "lr": some.one_of(numbers, some.just("2026-01-01")), "x": numbers},
)


@given(rows=some.lists(rows, max_size=20), torn=some.integers(0, 40))
def test_arrays_say_what_the_rows_say(tmp_path_factory: pytest.TempPathFactory, rows: Any, torn: int) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    path = store.records("node")
    path.parent.mkdir(parents=True)
    filled = [{"domain": "code", "grad_norm": 1.5, "step": row["tokens"] // 10, "loss": 0.5} | row for row in rows]
    data = "".join(json.dumps({"kind": row["kind"]} | row) + "\n" for row in filled)
    path.write_text(data[: max(0, len(data) - torn)])
    expected: dict[int, dict[str, Any]] = {}
    for row in records.read(path):
        expected.setdefault(row["tokens"], {}).update(history.metrics(row))
    for _ in range(2):  # parsed, then from the cache
        found = read_nodes(store, SWEEP, ["node"], Others())[0]["node"].metrics
        said = {
            (int(tokens), name): value
            for tokens, line in zip(found.tokens, found.values, strict=True)
            for name, value in zip(found.names, line, strict=True)
            if not np.isnan(value)
        }
        assert said == {(tokens, name): float(value) for tokens in expected for name, value in expected[tokens].items()}


def test_only_what_changed_is_read_again(store: Store) -> None:
    first = load(store, SWEEP)
    assert sorted(first.recorded.read) == sorted(first.plan.nodes)
    again = load(store, SWEEP)
    assert again.recorded.read == []
    pd.testing.assert_frame_equal(again.frame, first.frame)
    pd.testing.assert_frame_equal(again.scores, first.scores)
    leaf = first.plan.runs[0].nodes[-1]
    for attempt in range(2, 14):  # more often than the cache has files
        with Writer(store.records(leaf), attempt) as writer:
            writer.write("train", 1_300_000, 2600, loss=float(attempt))
        assert read_nodes(store, SWEEP, first.plan.nodes, Others())[1] == [leaf]
    changed = load(store, SWEEP)
    assert changed.train[leaf].set_index("tokens")["loss"][1_300_000] == 13
    expected = changed.frame  # before the files below it are cut
    kept = list((store.root / "cache" / "records" / SWEEP).glob("*.arrow"))
    assert 1 <= len(kept) <= 8
    for path in kept:
        path.write_bytes(path.read_bytes()[:1000])
    fresh = load(store, SWEEP)
    assert len(fresh.recorded.read) == len(fresh.plan.nodes), "a broken cache is no cache"
    pd.testing.assert_frame_equal(fresh.frame, expected)


def parse_after_others(path: Path) -> Piece | None:
    """`parse`, in the test's own process not before another has begun."""
    if (pipe := os.environ["OTHERS_SEEN"]) in _here:
        if (own := _here.pop(pipe)) is not None:
            os.read(own, 1)
        _here[pipe] = None
    else:
        Path(pipe).write_bytes(b".")
        if os.environ["OTHERS_END"]:
            os._exit(1)
    return parse(path)


_here: dict[str, int | None] = {}  # of the test's own process


@pytest.mark.parametrize("die", [False, True])
def test_other_processes_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, die: bool) -> None:
    """Also where one ends in the middle; a file of several blocks too."""
    monkeypatch.setattr(readers, "_WORTH", 1)
    monkeypatch.setattr(records, "_BLOCK", 2000)
    monkeypatch.setattr(machine, "cores", lambda: 3)
    os.mkfifo(pipe := str(tmp_path / "pipe"))
    monkeypatch.setitem(_here, pipe, os.open(pipe, os.O_RDWR))
    monkeypatch.setenv("OTHERS_SEEN", pipe)
    monkeypatch.setenv("OTHERS_END", "1" if die else "")
    files = {}
    for node in range(40):
        files[f"node {node}"] = tmp_path / f"{node}.jsonl"
        with Writer(files[f"node {node}"], 1) as writer:
            for step in range(60):
                more = {"loss/code": 0.25 * step} if step > 30 else {}
                writer.write("train", 10 * step, step, loss=float(step) if step % 7 else math.nan, **more)
    files["torn"] = tmp_path / "torn.jsonl"
    files["torn"].write_bytes(files["node 3"].read_bytes()[:-20])
    (tmp_path / "kept").mkdir()
    with Others() as others:
        found, fresh = read_files(tmp_path / "kept", files, parse_after_others, others)
        again, none = read_files(tmp_path / "kept", files, parse_after_others, others)
    assert sorted(fresh) == sorted(files) and none == []
    for name, path in files.items():
        expected = parse(path)
        assert expected is not None and list(expected.about["names"]) == list(found[name].about["names"])
        for piece in (found[name], again[name]):
            for left, right in zip(piece.arrays, expected.arrays, strict=True):
                np.testing.assert_array_equal(left, right)
    kept = len(list((tmp_path / "kept").glob("*.arrow")))
    assert kept == 1 if die else kept > 1


def test_a_store_that_cannot_be_written_is_read(store: Store) -> None:
    (store.root / "cache").write_text("in the way")
    assert len(load(store, SWEEP).frame)
    assert load(store, SWEEP).recorded.read


def test_a_torn_record_and_duplicates_after_a_crash(store: Store) -> None:
    whole = load(store, SWEEP)
    path = store.records(whole.plan.runs[0].nodes[-1])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, *lines[:7], lines[-1][:40]]))
    again = load(store, SWEEP)
    pd.testing.assert_frame_equal(again.frame, whole.frame)
    pd.testing.assert_frame_equal(again.scores, whole.scores)
    assert again.notes == whole.notes


def test_records_of_an_earlier_and_of_a_later_version(store: Store) -> None:
    whole = load(store, SWEEP)
    node = whole.plan.runs[0].nodes[-1]
    path = store.records(node)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["kind"] == "evaluation":
            del row["suite"]  # as before suites had keys
    rows.append(
        {"kind": "telepathy", "attempt": 1, "tokens": 1_300_000, "step": 2, "time": 1.0, "what": {"is": "this"}}
    )
    rows.append({"kind": "evaluation", "attempt": 1, "tokens": 1_300_000, "step": 2, "time": 1.0, "grades": [1]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mixed = load(store, SWEEP)
    pd.testing.assert_frame_equal(mixed.scores, whole.scores)
    pd.testing.assert_frame_equal(mixed.frame, whole.frame)
    (note,) = [note for note in mixed.notes if node in note]
    assert note == f"{node}: 1 records of a form this version does not know are left out"


def test_a_sweep_half_finished_has_its_tables(tmp_path: Path) -> None:
    store = fabricate(tmp_path, arms=ARMS, seeds=(0, 1), items=20, without=["dose1.0-s0", "dose1.0-s1"])
    found = study(store, SWEEP)
    missing = found.sweep.scores.loc[found.sweep.scores["missing"] != ""]
    assert set(missing["run"]) == {"dose1.0-s0", "dose1.0-s1"} and set(missing["missing"]) == {
        "the node has no records"
    }
    assert any(cell.difference is None for cell in found.main.shown) and found.table.data
    frame = found.sweep.frame
    assert set(frame.loc[frame["arm"] == "QA-70%", "stage"]) == {"s1_1", "s2_1"}, "the shared trunk is in its runs"


def test_a_metric_that_some_arms_lack(store: Store) -> None:
    plan = load(store, SWEEP).plan
    leaves = [run.nodes[-1] for run in plan.runs if run.arm == "QA-70%"]
    for leaf in leaves:
        with Writer(store.records(leaf), 1) as writer:
            writer.write("train", 1_342_400, 2622, loss=2.0, **{"loss/qa": 1.5})
    frame = load(store, SWEEP).frame
    has = frame[frame["metric"] == "train/loss/qa"]
    assert set(has["arm"]) == {"QA-70%"} and set(has["value"]) == {1.5}
    wide = frame[frame["stage"] == "s2_2"].pivot_table(index="arm", columns="metric", values="value", observed=True)
    assert np.isnan(wide.loc["QA-30%", "train/loss/qa"]) and wide["train/loss"].notna().all()


def test_rows_that_nobody_wrote_are_passed_over(store: Store) -> None:
    whole = load(store, SWEEP)
    path = store.records(whole.plan.runs[0].nodes[-1])
    odd = [
        {"kind": ["train"], "attempt": 1, "tokens": 1_300_000, "step": 2},
        {"kind": "train", "attempt": 1, "tokens": 10**23, "step": 2, "loss": 1.0},
        {"kind": "telepathy", "attempt": 1, "tokens": 1_300_000, "step": 2, "domain": {"is": "this"}},
    ]
    path.write_bytes(path.read_bytes() + b"\xff\x00\n[]\n" + b"".join(json.dumps(row).encode() + b"\n" for row in odd))
    mixed = load(store, SWEEP)
    pd.testing.assert_frame_equal(mixed.frame, whole.frame)
    pd.testing.assert_frame_equal(mixed.scores, whole.scores)


def test_a_flag_among_the_numbers_is_one(store: Store) -> None:
    plan = load(store, SWEEP).plan
    with Writer(store.records(plan.runs[0].nodes[-1]), 1) as writer:
        for tokens, flag in ((1_300_001, True), (1_300_002, False)):
            writer.write("train", tokens, tokens // 512, loss=2.0, warm=flag)
    frame = load(store, SWEEP).frame
    assert frame.loc[frame["metric"] == "train/warm", "value"].tolist() == [1.0, 0.0]
