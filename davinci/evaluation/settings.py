"""What scores depend on beside the weights, as one digest. Light: no harness, no torch, no frames are imported."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from davinci.config import Evaluation, Node
from davinci.errors import UserError
from davinci.evaluation import examples, local_data, suite
from davinci.evaluation.code_tasks import refuse_code
from davinci.store import Store, file_digest

# Raise it when adapter or harness code changes scores that no file's digest would show.
EVALUATION_VERSION = 3
FEWSHOT_SEED = 1234


def settings_digest(node: Node, evaluation: Evaluation, store: Store) -> str:
    """Digest of everything the scores depend on beside the weights: 24 hex digits.

    Model shape and precision, tokenizer, task files with their generation limits, item files, shots and their seed,
    protocol, metric, limit, harness version. Domain, chance and what only prices an evaluation leave it alone.

    Raises:
        UserError: an unknown task, or a pool whose tokenizer or benchmark items are missing.
    """
    model = node.model.model_dump(mode="json", exclude={"name"})
    tokenizer = _file_digest(store.pool(node.pool) / "tokenizer.json")
    return tasks_digest(node.pool, evaluation, store, model=model, tokenizer=tokenizer)


def tasks_digest(pool: str, evaluation: Evaluation, store: Store, *, model: Any, tokenizer: str) -> str:
    """`settings_digest` of any model: `model` is plain data that says what its weights are computed with."""
    suite.check(evaluation)
    for benchmark in evaluation.benchmarks.values():
        for config in suite.leaves(evaluation.harness, benchmark.task).values():
            refuse_code(config, evaluation.run_code)
    if evaluation.data is not None and evaluation.harness == "embedded":
        raise UserError(
            "evaluation.data: harness embedded reads the items of the pool; leave it null, or harness: lm_eval"
        )
    examples.check(evaluation, store.pool(pool) / "tasks")
    parts: dict[str, Any] = {
        "version": EVALUATION_VERSION,
        "harness": [evaluation.harness, _version("lm-eval")],
        "model": model,
        "tokenizer": tokenizer,
        "limit": evaluation.limit,
        "fewshot_seed": FEWSHOT_SEED,
        "benchmarks": {
            name: [
                benchmark.protocol,
                benchmark.metric,
                benchmark.num_fewshot,
                _task_digests(evaluation.harness, benchmark.task, store.pool(pool) / "tasks"),
                *([] if benchmark.prompt == "own" else [benchmark.prompt]),
            ]
            for name, benchmark in evaluation.benchmarks.items()
        },
    }
    if evaluation.data is not None:
        parts["data"] = {name: _data_digests(evaluation, name) for name in evaluation.benchmarks}
    if evaluation.keep_text:  # the same scores, but records that hold more
        parts["keep_text"] = True
    return digest(parts)[:24]


def benchmark_digest(pool: str, evaluation: Evaluation, store: Store) -> str | None:
    """Digest of what the one benchmark of `evaluation` is: task and item files, protocol, shots and their seed, metric,
    limit. Unlike `settings_digest` it leaves out the model, whose history it is to be part of, and the versions of
    programs. None where the pool has no such items (yet).

    Raises:
        UserError: an unknown task.
    """
    suite.check(evaluation)
    (benchmark,) = evaluation.benchmarks.values()
    folder = store.pool(pool) / "tasks"
    _, items = _definition(evaluation.harness, benchmark.task)
    if items is not None and not (folder / items).is_file():
        return None
    parts = [
        evaluation.harness,
        benchmark.protocol,
        benchmark.metric,
        benchmark.num_fewshot,
        FEWSHOT_SEED,
        evaluation.limit,
        _task_digests(evaluation.harness, benchmark.task, folder),
    ]
    return digest(parts)[:24]


def digest(value: Any) -> str:
    """SHA-256 of plain data, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _task_digests(harness: suite.Harness, task: str, folder: Path) -> list[str]:
    """Digests of the task's definition and, where its items are a file of the pool, of those."""
    definition, items = _definition(harness, task)
    return [definition] if items is None else [definition, _file_digest(folder / items)]


def _data_digests(evaluation: Evaluation, name: str) -> dict[str, dict[str, str]] | None:
    """Digests of the local files of a benchmark's data sets, by task and split; None where they are the hub's."""
    benchmark = evaluation.benchmarks[name]
    folder = local_data.root(evaluation, name, benchmark.task)
    if folder is None:
        return None
    return {
        task: {split: _file_digest(file) for split, file in files.items()}
        for task, config in suite.leaves(evaluation.harness, benchmark.task).items()
        for files in [local_data.files(folder, config, benchmark.num_fewshot)]
    }


@lru_cache
def _definition(harness: suite.Harness, task: str) -> tuple[str, str | None]:
    """Digest of a task's definition, and the name of its item file in the pool."""
    config = suite.task_config(suite.task_files(harness)[task])
    members = {} if harness == "embedded" else suite.leaves(harness, task)
    return digest([config, members] if members else config), (
        config["dataset_kwargs"]["file"] if harness == "embedded" else None
    )


@lru_cache
def _version(package: str) -> str:
    return version(package)


def _file_digest(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: missing; build its pool with: python -m davinci data build NAME") from None
    return _digest_of(path, status.st_size, status.st_mtime_ns)


def file_digest_once(path: Path) -> str:
    """SHA-256 of a file, computed once a process as long as size and time of change stand."""
    status = path.stat()
    return _digest_of(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _digest_of(path: Path, size: int, modified: int) -> str:
    """Digest of a file as it is at this size and time: a plan of a thousand models hashes it once."""
    return file_digest(path)
