"""The items of a suite as text, question with right answer: what training text must not hold (`data.contamination`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from davinci.config import Benchmark, Evaluation
from davinci.data.contamination import BenchmarkItem
from davinci.evaluation import suite
from davinci.evaluation.item_sets import item_set
from davinci.evaluation.items import read_items
from davinci.store import Store, write_text


def items_file(store: Store, name: str) -> Path:
    """Where the items of the suite of that name are kept."""
    return store.root / "items" / f"{name}.jsonl"


def write_items(evaluation: Evaluation, pool: str, store: Store) -> Path:
    """Write the suite's items; `pool` is whose held-out documents those of the embedded suite are made of.

    Raises:
        UserError: items that are not there, or data that cannot be had.
    """
    rows = [
        {"benchmark": one.benchmark, "id": one.id, "text": one.text} for one in suite_items(evaluation, pool, store)
    ]
    path = items_file(store, evaluation.suite)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def suite_items(evaluation: Evaluation, pool: str, store: Store) -> Iterator[BenchmarkItem]:
    """Every item that the suite's benchmarks are scored on, benchmark after benchmark."""
    seen: set[str] = set()
    for name, benchmark in evaluation.benchmarks.items():
        if evaluation.harness == "embedded":
            config = suite.task_config(suite.task_files("embedded")[benchmark.task])
            file = str(config["dataset_kwargs"]["file"])
            if file not in seen:  # two protocols ask the same items
                seen.add(file)
                yield from _embedded(Path(file).stem, store.pool(pool) / "tasks" / file)
        else:
            yield from _of_harness(name, benchmark, evaluation, store.pool(pool) / "tasks")


def _embedded(name: str, path: Path) -> Iterator[BenchmarkItem]:
    for row in read_items(path):
        if row["split"] == "test":
            yield BenchmarkItem(name, str(row["id"]), row["context"] + row["choices"][row["label"]])


def _of_harness(name: str, benchmark: Benchmark, evaluation: Evaluation, folder: Path) -> Iterator[BenchmarkItem]:
    from davinci.evaluation.harness import prepare_environment
    from davinci.evaluation.loading import load

    prepare_environment(evaluation, folder.parents[2])
    # No program is run: a task that would run some is only read.
    readable = evaluation.model_copy(update={"run_code": "best_effort"})
    for task in load(name, benchmark.model_copy(update={"num_fewshot": 0}), readable, folder)["tasks"].values():
        for number, document in enumerate(task.test_docs() if task.has_test_docs() else task.validation_docs()):
            yield BenchmarkItem(name, f"{task.task_name}/{number}", _text(task, document))


def _text(task: Any, document: Any) -> str:
    items = item_set(task.config.to_dict(keep_callable=True))
    if items is not None:
        item = items.item(document)
        return " ".join([items.stem(item), *(item.choices[at] for at in item.answers)])
    question, answer = task.doc_to_text(document), task.doc_to_target(document)
    answers = answer if isinstance(answer, list) else [answer]
    return " ".join(map(str, [question, *answers]))
