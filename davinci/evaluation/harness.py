"""Runs a suite through lm-eval's own evaluator and turns its sample records into one frame."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from davinci.config import Benchmark, Evaluation, Node
from davinci.errors import UserError, nearest
from davinci.evaluation import suite
from davinci.store import Store


def run(
    weights: Sequence[Path], node: Node, evaluation: Evaluation, store: Store, *, settings: str, fewshot_seed: int
) -> tuple[dict[str, float], pd.DataFrame]:
    """Evaluate the mean of these files of weights of `node`.

    `settings` is the digest of all that defines the tasks: those of the same digest are loaded once a process.

    Returns:
        The score of each benchmark, and a row an item: benchmark, item (int32), score (float64), chosen (Int16), text.

    Raises:
        UserError: a metric the task does not compute.
    """
    _prepare_environment(evaluation, store)
    from lm_eval.evaluator import evaluate

    from davinci.evaluation.adapter import load

    lm = load(weights, node, store)
    scores: dict[str, float] = {}
    frames = []
    for name, benchmark in evaluation.benchmarks.items():
        loaded = _load(evaluation.harness, benchmark.task, str(store.pool(node.pool) / "tasks"), settings)
        for task in loaded["tasks"].values():
            task.set_config("num_fewshot", benchmark.num_fewshot)
            task.set_fewshot_seed(fewshot_seed)
        with redirect_stderr(io.StringIO()):  # its progress bars: one a benchmark and checkpoint would bury a job's log
            found = evaluate(
                lm=lm,
                task_dict=loaded,
                limit=evaluation.limit,
                bootstrap_iters=0,
                log_samples=True,
                confirm_run_unsafe_code=True,
            )
        metric, chain = _metric(found["results"][benchmark.task], name, benchmark)
        scores[name] = float(found["results"][benchmark.task][f"{metric},{chain}"])
        frames.append(_frame(found["samples"], loaded["tasks"], name, metric, chain))
    return scores, pd.concat(frames, ignore_index=True)


def _prepare_environment(evaluation: Evaluation, store: Store) -> None:
    """Settings that lm-eval's libraries read when they are first imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HOME", str(store.root / "huggingface"))
    if evaluation.harness == "embedded":
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
            os.environ.setdefault(name, "1")
    # Its warnings are advice to whoever writes tasks; they would fill a job's log at every checkpoint.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


@lru_cache
def _manager(harness: suite.Harness, folder: str) -> Any:
    from lm_eval.tasks import TaskManager

    own = suite.task_folders(harness)[0]
    return TaskManager(include_path=str(own), include_defaults=harness == "lm_eval", metadata={"folder": folder})


@lru_cache(maxsize=256)
def _load(harness: suite.Harness, task: str, folder: str, settings: str) -> dict[str, Any]:
    loaded: dict[str, Any] = _manager(harness, folder).load([task])
    return loaded


def _metric(results: dict[str, Any], name: str, benchmark: Benchmark) -> tuple[str, str]:
    """lm-eval's metric and filter names for the benchmark's ``metric``, given as ``name`` or ``name,filter``."""
    known = [key for key in results if "," in key and "_stderr," not in key]
    matches = [key for key in known if benchmark.metric in (key, key.partition(",")[0])]
    if len(matches) != 1:
        problem = "is ambiguous" if matches else "is not computed"
        raise UserError(
            f"evaluation.benchmarks.{name}.metric: {benchmark.metric!r} {problem} by task {benchmark.task}"
            + nearest(benchmark.metric, known)
        )
    metric, _, chain = matches[0].partition(",")
    return metric, chain


def _frame(
    samples: dict[str, list[dict[str, Any]]], tasks: dict[str, Any], name: str, metric: str, chain: str
) -> pd.DataFrame:
    rows = []
    for task_name in sorted(tasks):
        kind = tasks[task_name].OUTPUT_TYPE
        for sample in samples[task_name]:
            if sample["filter"] != chain:
                continue
            chosen = text = None
            if kind == "multiple_choice":
                values = [likelihood for likelihood, _ in sample["filtered_resps"]]
                chosen = max(range(len(values)), key=values.__getitem__)
            elif kind == "generate_until":
                text = sample["resps"][0][0]
            rows.append((sample["doc_id"], float(sample[metric]), chosen, text))
    frame = pd.DataFrame(rows, columns=["item", "score", "chosen", "text"])
    if len(tasks) > 1:  # a group: its members' ids overlap
        frame["item"] = range(len(frame))
    frame = frame.astype({"item": "int32", "score": "float64", "chosen": "Int16", "text": "string"})
    frame.insert(0, "benchmark", name)
    return frame
