"""Whether there are as many examples as a suite asks for, as far as files on this machine tell: before any training.

What only lm-eval can count (the hub's data, rows of one subject among others) is refused when a benchmark is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from davinci.config import Evaluation
from davinci.errors import UserError
from davinci.evaluation import local_data, suite


def check(evaluation: Evaluation, folder: Path) -> None:
    """Refuse a benchmark with more examples than its files have; `folder` holds the embedded suite's items.

    Raises:
        UserError: naming the key and how many there are.
    """
    for name, benchmark in evaluation.benchmarks.items():
        if not benchmark.num_fewshot:
            continue
        for task, config in suite.leaves(evaluation.harness, benchmark.task).items():
            for count in _counts(evaluation, name, config, folder):
                if count < benchmark.num_fewshot:
                    raise UserError(too_many(name, task, benchmark.num_fewshot, count))


def too_many(name: str, task: str, shots: int, count: int) -> str:
    """What is said of `shots` examples where `count` are there."""
    return f"evaluation.benchmarks.{name}.num_fewshot: {shots} examples are asked for, and task {task} has {count}"


def _counts(evaluation: Evaluation, name: str, config: Mapping[str, Any], folder: Path) -> Iterator[int]:
    """How many examples a task has at most, if its files tell."""
    benchmark = evaluation.benchmarks[name]
    if evaluation.harness == "embedded":
        file = folder / config["dataset_kwargs"]["file"]
        if file.is_file():
            yield _splits(file, file.stat().st_mtime_ns).get(config["fewshot_split"], 0)
        return
    root = local_data.root(evaluation, name, benchmark.task)
    if root is None or (config.get("fewshot_config") or {}).get("samples"):
        return
    files = local_data.files(root, config, benchmark.num_fewshot)
    split = local_data.splits(config, benchmark.num_fewshot)[-1]
    if files[split].suffix == ".jsonl":
        own = split in (config.get("test_split"), config.get("validation_split")) and len(files) == 1
        yield _lines(files[split], files[split].stat().st_mtime_ns) - own  # a question is no example of itself


@lru_cache(maxsize=1024)
def _splits(file: Path, modified: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            split = json.loads(line)["split"]
            counts[split] = counts.get(split, 0) + 1
    return counts


@lru_cache(maxsize=1024)
def _lines(file: Path, modified: int) -> int:
    with file.open("rb") as opened:
        return sum(1 for line in opened if line.strip())
