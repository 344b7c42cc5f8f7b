"""A benchmark's tasks as lm-eval's objects, made by lm-eval from its own configs with what the suite says of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FunctionType
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory

from davinci.config import Benchmark, Evaluation
from davinci.errors import UserError
from davinci.evaluation import code_tasks, hub, local_data, suite
from davinci.evaluation.examples import too_many
from davinci.evaluation.item_sets import RowError, of_benchmark
from davinci.evaluation.protocols import convert

# Where a data set on the hub cannot be had: no network, offline mode, no such set, no right to it. The libraries' own
# exceptions descend from these.
_UNREACHABLE = (OSError, RuntimeError, ValueError)


class Unreachable(UserError):
    """A data set that neither the hub nor what it left on this machine gives."""


class _Factory(TaskFactory):
    """lm-eval's factory, with each config as a benchmark wants it."""

    def __init__(self, folder: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__(meta={"folder": folder})
        self._change = change

    def _load_full_config(self, entry: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._change(super()._load_full_config(entry, overrides))


_LOADED: dict[tuple[str, str], dict[str, Any]] = {}


def load_once(settings: str, name: str, benchmark: Benchmark, evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """`load`, once a process for the same `settings`, which is a digest of all that defines the suite's tasks."""
    if (settings, name) not in _LOADED:
        _LOADED[settings, name] = load(name, benchmark, evaluation, folder)
    return _LOADED[settings, name]


def load(name: str, benchmark: Benchmark, evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """lm-eval's ``tasks``, ``groups`` and ``group_map`` of the benchmark `name`.

    Args:
        name: of the benchmark in the suite.
        benchmark: its task, protocol, prompt, metric and shots.
        evaluation: the suite: whose task files, which local data, whether code is run.
        folder: where the embedded suite's items are.

    Raises:
        UserError: data that is missing or cannot be had, too few examples, code without leave to run it.
    """
    source = local_data.root(evaluation, name, benchmark.task)

    def change(config: dict[str, Any]) -> dict[str, Any]:
        if "group" in config:
            return _aggregated(config, benchmark)
        changed = convert(config, benchmark)
        if changed.get("process_docs") is not None:
            changed["process_docs"] = _repeatable(changed["process_docs"])
        if changed.get("unsafe_code"):
            changed = code_tasks.permitted(changed, evaluation.run_code)
        if source is None:
            return changed
        found = local_data.files(source, config, benchmark.num_fewshot)
        return {**changed, **local_data.overrides(found, config)}

    manager = TaskManager(
        include_path=[str(one) for one in _folders(evaluation.harness, benchmark.task)], include_defaults=False
    )
    manager._factory = _Factory(str(folder), change)
    try:
        loaded: dict[str, Any] = manager.load([benchmark.task])
    except RowError as error:
        raise of_benchmark(error, name, source) from error
    except UserError:
        raise
    except Exception as error:
        if source is not None:
            why = "there are none" if isinstance(error, StopIteration) else _line(error)
            raise UserError(
                f"evaluation.data: {source}: task {benchmark.task} cannot read its rows ({why}); they must "
                "have the fields of its data set on the hub"
            ) from error
        if evaluation.harness == "embedded" or not isinstance(error, _UNREACHABLE):
            raise
        raise _unreachable(name, benchmark, evaluation, error) from error
    for task in loaded["tasks"].values():
        _check_examples(name, task, benchmark.num_fewshot)
    return loaded


def _folders(harness: suite.Harness, task: str) -> list[Path]:
    """lm-eval's index of all its tasks takes half a minute, that of the folders in question half a second; ours last,
    since the last of a name counts."""
    own = suite.task_folders(harness)[0]
    return [*(one for one in suite.folders(harness, task) if not one.is_relative_to(own)), own]


def _aggregated(config: dict[str, Any], benchmark: Benchmark) -> dict[str, Any]:
    """A group's config whose score is the mean over items of the benchmark's metric."""
    metric, _, chain = benchmark.metric.partition(",")
    for one in config.get("aggregate_metric_list") or []:
        if one["metric"] == metric and not chain:
            return config
    wanted = {"metric": metric, "aggregation": "mean", "weight_by_size": True, "filter_list": chain or "none"}
    return {**config, "aggregate_metric_list": [wanted]}


_STATES: dict[int, tuple[Random, Any]] = {}


def _repeatable(process: Callable[..., Any]) -> Callable[..., Any]:
    """`process_docs` that gives the same documents however often it is called.

    lm-eval calls it anew for examples, requests and scores; GPQA's shuffles its options with a generator of its module,
    so that a question's right letter would differ from one call to the next.
    """
    if not isinstance(process, FunctionType):
        return process
    found = [one for one in process.__globals__.values() if isinstance(one, Random)]
    if not found:
        return process
    for one in found:
        _STATES.setdefault(id(one), (one, one.getstate()))

    def process_docs(dataset: Any) -> Any:
        for generator, state in (_STATES[id(one)] for one in found):
            generator.setstate(state)
        return process(dataset)

    return process_docs


def _unreachable(name: str, benchmark: Benchmark, evaluation: Evaluation, error: Exception) -> Unreachable:
    task, config = next(iter(suite.leaves(evaluation.harness, benchmark.task).items()))
    wanted = ", ".join(f"{split}.jsonl" for split in local_data.splits(config, benchmark.num_fewshot))
    said = f"{hub.address()} does not answer, or is switched off" if os.environ.get(hub.SWITCHES[0]) else _line(error)
    return Unreachable(
        f"evaluation.benchmarks.{name}: {config.get('dataset_path')}, the data of task {task}, cannot be had from its "
        f"hub ({said}); give its files with evaluation.data, a folder with "
        f"{benchmark.task}/{wanted} (docs/evaluation.md)"
    )


def _line(error: Exception) -> str:
    """The exception's name with the first and last line of what it says, of its cause where libraries wrap it."""
    said = [line.strip() for line in str(error.__cause__ or error).strip().splitlines()] or [""]
    return f"{type(error).__name__}: {' … '.join(dict.fromkeys([said[0][:160], said[-1][:160]]))}"


def _check_examples(name: str, task: Any, shots: int) -> None:
    """Refuse more examples than there are; a question is no example of itself."""
    pool = len(task.sampler.df)
    same = task.fewshot_cfg.split == task.config.test_split and task.fewshot_cfg.samples is None
    if shots > pool - same:
        raise UserError(too_many(name, task.task_name, shots, pool - same))
