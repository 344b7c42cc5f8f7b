"""Runs a suite through lm-eval's own evaluator and turns its sample records into one frame."""

from __future__ import annotations

import io
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import TemplateError

from davinci.config import Benchmark, Evaluation
from davinci.errors import UserError, nearest
from davinci.evaluation import hub, local_data
from davinci.evaluation.item_records import item_frame
from davinci.evaluation.item_sets import RowError, of_benchmark
from davinci.evaluation.per_token import offer_per_token
from davinci.store import Store


def run(
    load: Callable[[], Any],
    folder: Path,
    evaluation: Evaluation,
    store: Store,
    *,
    settings: str,
    fewshot_seed: int,
    on_benchmark: Callable[[str, float, pd.DataFrame], None] = lambda name, score, frame: None,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Evaluate the model that `load` makes (lm-eval's LM); the items of the project's own tasks are in `folder`.

    `settings` is the digest of all that defines the tasks: those of the same digest are loaded once a process.
    `on_benchmark` is told each benchmark's score and items as soon as they are there; what it raises ends the run.

    Returns:
        The score of each benchmark, and a row an item (`item_records.SCHEMA`).

    Raises:
        UserError: a metric the task does not compute.
    """
    prepare_environment(evaluation, store.root)
    from lm_eval.evaluator import evaluate

    from davinci.evaluation.loading import Unreachable, load_once

    # All tasks first: one whose data is missing is refused before the others have been evaluated in vain.
    loaded_tasks = {}
    absent: dict[str, Unreachable] = {}
    for name, benchmark in evaluation.benchmarks.items():
        try:
            loaded_tasks[name] = load_once(settings, name, benchmark, evaluation, folder)
        except Unreachable as error:
            absent[name] = error
    if absent:
        first, *others = absent
        also = f"; neither can the data of {', '.join(others)}" if others else ""
        raise UserError(f"{absent[first]}{also}")
    lm = load()
    scores: dict[str, float] = {}
    frames = []
    for name, benchmark in evaluation.benchmarks.items():
        loaded = loaded_tasks[name]
        for task in loaded["tasks"].values():
            if task.OUTPUT_TYPE == "multiple_choice" and benchmark.metric.partition(",")[0] == "acc_tokens":
                offer_per_token(task, lm)
            task.set_config("num_fewshot", benchmark.num_fewshot)
            task.set_fewshot_seed(fewshot_seed)
        source = local_data.root(evaluation, name, benchmark.task)
        with (
            _rows_said(name, benchmark, source),
            redirect_stderr(io.StringIO()),
        ):  # its progress bars: one a benchmark and checkpoint would bury a job's log
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
        frames.append(item_frame(found["samples"], loaded["tasks"], name, metric, chain, lm, evaluation.keep_text))
        on_benchmark(name, scores[name], frames[-1])
    return scores, pd.concat(frames, ignore_index=True)


@contextmanager
def _rows_said(name: str, benchmark: Benchmark, source: Path | None) -> Iterator[None]:
    """Have what goes wrong say of which benchmark; and of local rows that no question can be made of, that they are."""
    try:
        yield
    except RowError as error:
        raise of_benchmark(error, name, source) from error
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError, TemplateError) as error:
        if source is None or _is_of_the_model(error):
            raise
        raise UserError(
            f"evaluation.benchmarks.{name}: {source}: task {benchmark.task} can make no question of one of its rows "
            f"({type(error).__name__}: {str(error)[:160]}); they must have the fields of its data set on the hub"
        ) from error


def _is_of_the_model(error: Exception) -> bool:
    """Whether the model was being asked when it happened."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any("/lm_eval/models/" in file or file.endswith("/evaluation/adapter.py") for file in files)


def prepare_environment(evaluation: Evaluation, root: Path) -> None:
    """Settings that lm-eval's libraries read when they are first imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HOME", str(root / "huggingface"))
    if evaluation.harness == "embedded":
        hub.switch_off()
    elif any(local_data.root(evaluation, name, one.task) is None for name, one in evaluation.benchmarks.items()):
        hub.switch_off_if_silent()
    # Its warnings are advice to whoever writes tasks; they would fill a job's log at every checkpoint.
    for name in ("lm_eval", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)


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
