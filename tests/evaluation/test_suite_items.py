"""A suite's items as text: question with right answer, of the embedded suite and of lm-eval's tasks on local rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from benchmark_rows import write_rows

from davinci.config import Evaluation, parse
from davinci.data.contamination import read_items
from davinci.evaluation.embedded import make_tasks
from davinci.evaluation.suite_items import suite_items, write_items
from davinci.store import Store

CONF = Path(__file__).parents[2] / "conf" / "evaluation"


def suite(name: str, *benchmarks: str, **changes: Any) -> Evaluation:
    data = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")) | {"probes": None, "at": []}
    data["benchmarks"] = {one: data["benchmarks"][one] for one in benchmarks or data["benchmarks"]}
    return parse(Evaluation, data | changes)


def test_the_items_of_the_papers_suite_come_from_its_data_sets(tmp_path: Path) -> None:
    write_rows(tmp_path / "data")
    asked = suite("paper", "MMLU", "GSM8K", "HumanEval", data=str(tmp_path / "data"))
    path = write_items(asked, "embedded", Store(tmp_path / "store"))
    items = read_items(path)
    assert path == tmp_path / "store" / "items" / "paper.jsonl" and len({one.id for one in items}) == len(items)
    texts = {name: [one.text for one in items if one.benchmark == name] for name in ("MMLU", "GSM8K", "HumanEval")}
    assert "Which planet has place 1 from the sun? (0)\nA. Mercury\nB. Venus\nC. Earth\nD. Mars A" in texts["MMLU"]
    assert all(texts.values()) and "def add_0(x):" in " ".join(texts["HumanEval"])


def test_the_items_of_the_embedded_suite_are_those_it_is_scored_on(built_pool: Store) -> None:
    make_tasks(built_pool, "embedded")
    items = list(suite_items(suite("embedded"), "embedded", built_pool))
    assert len({(one.benchmark, one.id) for one in items}) == len(items) > 0
    assert {one.benchmark for one in items} >= {"arithmetic", "general_cloze"}, "two protocols, one set of items"
