"""The embedded benchmarks' items: same bytes every time, no giveaway by length, from held-out documents only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from davinci.errors import UserError
from davinci.evaluation import embedded
from davinci.evaluation.items import read_items
from davinci.store import Store, read_json


@pytest.fixture(scope="module")
def tasks(built_pool: Store) -> Path:
    embedded.make_tasks(built_pool, "embedded")
    return built_pool.pool("embedded") / "tasks"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_pool_same_bytes(tasks: Path, built_pool: Store, tmp_path: Path) -> None:
    copy = Store(tmp_path)
    ignore = shutil.ignore_patterns("tasks")
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"), ignore=ignore)
    embedded.make_tasks(copy, "embedded")
    assert contents(copy.pool("embedded") / "tasks") == contents(tasks)


def test_second_call_writes_nothing(tasks: Path, built_pool: Store) -> None:
    before = {path: path.stat().st_mtime_ns for path in tasks.iterdir()}
    embedded.make_tasks(built_pool, "embedded")
    assert {path: path.stat().st_mtime_ns for path in tasks.iterdir()} == before


def test_damaged_items_are_made_again(tasks: Path, built_pool: Store, tmp_path: Path) -> None:
    copy = Store(tmp_path)
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"))
    damaged = copy.pool("embedded") / "tasks" / "general_cloze.jsonl"
    damaged.write_text("{}\n", encoding="utf-8")
    embedded.make_tasks(copy, "embedded")
    assert damaged.read_bytes() == (tasks / "general_cloze.jsonl").read_bytes()


@pytest.mark.parametrize("name", sorted(embedded.MAKERS))
def test_items_are_answerable_and_held_out(name: str, tasks: Path, built_pool: Store) -> None:
    rows = read_items(tasks / f"{name}.jsonl")
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert len({row["context"] for row in rows}) == len(rows)
    assert sum(row["split"] == "fewshot" for row in rows) == embedded.FEWSHOT_ITEMS
    held_out = {}
    for source in {row["source"] for row in rows}:
        file = built_pool.pool("embedded") / f"{source}@L3" / "heldout.jsonl"
        held_out[source] = {one["id"]: one["text"] for one in map(json.loads, file.open(encoding="utf-8"))}
    for row in rows:
        assert len(row["choices"]) == 4 == len(set(row["choices"]))
        right = row["choices"][row["label"]]
        text = " ".join(held_out[row["source"]][row["document"]].split())
        assert " ".join((row["context"].split("\nAnswer:")[0]).split()) in text
        assert right.strip() in text or " ".join(right.split()) in text
        lengths = [len(choice.encode()) for choice in row["choices"]]
        assert max(lengths) - min(lengths) <= 12


def test_labels_and_lengths_give_nothing_away(tasks: Path) -> None:
    manifest = read_json(tasks / "manifest.json")
    assert manifest["generator"] == embedded.GENERATOR
    assert manifest["seed"] == embedded.SEED
    for name, entry in manifest["benchmarks"].items():
        assert entry["baselines"]["chance"] == 0.25
        assert abs(entry["baselines"]["shortest"] - 0.25) < 0.12, name
        assert abs(entry["baselines"]["longest"] - 0.25) < 0.12, name
        labels = [row["label"] for row in read_items(tasks / f"{name}.jsonl")]
        assert max(labels.count(label) for label in range(4)) < 0.4 * len(labels)


def test_swaps_keep_every_byte(tasks: Path) -> None:
    for name in ("general_word_order", "code_name_order"):
        for row in read_items(tasks / f"{name}.jsonl"):
            assert len({tuple(sorted(choice)) for choice in row["choices"]}) == 1


def test_unbuilt_and_small_pools_are_refused(built_pool: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not built"):
        embedded.make_tasks(Store(tmp_path), "embedded")
    copy = Store(tmp_path)
    ignore = shutil.ignore_patterns("tasks")
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"), ignore=ignore)
    short = copy.pool("embedded") / "scripts@L3" / "heldout.jsonl"
    short.write_text(short.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="hold out more documents"):
        embedded.make_tasks(copy, "embedded")
