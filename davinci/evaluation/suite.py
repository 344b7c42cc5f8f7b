"""Which benchmarks exist and what their task files say: no harness and no torch is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml

from davinci.config import Benchmark, Evaluation
from davinci.errors import UserError, nearest
from davinci.evaluation.item_sets import item_set
from davinci.evaluation.protocols import LIKELIHOOD_METRICS, is_converted, native

Harness = Literal["embedded", "lm_eval"]

EMBEDDED_TASKS = Path(__file__).parent / "tasks"
PAPER_TASKS = Path(__file__).parent / "paper_tasks"

_NAME = re.compile(r"""^["']?(?:task|group)["']?:[ \t]*["']?([\w.+-]+)["']?[ \t]*$""", re.MULTILINE)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads ``!function module.name`` as the string it is."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def task_folders(harness: Harness) -> list[Path]:
    """Folders whose YAML files define the tasks of `harness`, the project's own first."""
    if harness == "embedded":
        return [EMBEDDED_TASKS]
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("evaluation.harness lm_eval: the package lm-eval is not installed; pip install lm-eval")
    return [PAPER_TASKS, Path(spec.submodule_search_locations[0]) / "tasks"]


@lru_cache
def task_files(harness: Harness) -> dict[str, Path]:
    """The file that defines each task or group of `harness` (about 1 s for ``lm_eval``: 12,000 files)."""
    files: dict[str, Path] = {}
    for folder in task_folders(harness):
        for file in sorted(folder.rglob("*.yaml")):
            for name in _NAME.findall(file.read_text(encoding="utf-8", errors="replace")):
                files.setdefault(name, file)
    return files


def known_tasks(harness: Harness = "embedded") -> list[str]:
    """Sorted names of the tasks and groups that `harness` can run."""
    return sorted(task_files(harness))


@lru_cache(maxsize=4096)
def task_config(file: Path) -> dict[str, Any]:
    """A task file as plain data, its ``include`` resolved, functions left as their names. Not to be changed."""
    config: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    included = config.pop("include", [])
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included]:
        merged.update(task_config(file.parent / name))
    return {**merged, **config}


@lru_cache
def leaves(harness: Harness, task: str) -> dict[str, dict[str, Any]]:
    """The tasks that a task or group of `harness` runs, by name: their files as plain data.

    A member of a group that is the name of no file is a tag, as lm-eval has them: that of the files beside the group's.
    """
    file = task_files(harness)[task]
    config = task_config(file)
    return _members(harness, config, file.parent) if "group" in config else {task: config}


def _members(harness: Harness, group: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    known = task_files(harness)
    found: dict[str, dict[str, Any]] = {}
    for member in group["task"]:
        name = member if isinstance(member, str) else str(member.get("group", member.get("task")))
        if name in known:
            found.update(leaves(harness, name))
        elif isinstance(member, str):
            found.update(_tagged(folder, name))
        else:
            found.update(_members(harness, member, folder))
    return found


def folders(harness: Harness, task: str) -> list[Path]:
    """Where the files lie of a task or group of `harness` and of all in it."""
    known = task_files(harness)
    return sorted({known[task].parent, *(known[name].parent for name in leaves(harness, task))})


def _tagged(folder: Path, tag: str) -> dict[str, dict[str, Any]]:
    found = {}
    for config in map(task_config, sorted(folder.glob("*.yaml"))):
        tags = config.get("tag") or []
        if tag == tags or (isinstance(tags, list) and tag in tags):
            found[str(config["task"])] = config
    return found


def check(evaluation: Evaluation) -> None:
    """Refuse a benchmark whose task no file defines, or that does not have its protocol or metric.

    Raises:
        UserError: naming the key, its value and the nearest known ones.
    """
    for name, benchmark in evaluation.benchmarks.items():
        _check(evaluation.harness, name, benchmark)


@lru_cache(maxsize=4096)
def _check(harness: Harness, name: str, benchmark: Benchmark) -> None:
    """`check` of one benchmark: a plan has thousands of the same."""
    where, task = f"evaluation.benchmarks.{name}", benchmark.task
    known = known_tasks(harness)
    if task not in known:
        raise UserError(f"{where}.task: harness {harness} has no task {task!r}{nearest(task, known)}")
    tasks = leaves(harness, task).values()
    converted = [one for one in tasks if is_converted(one, benchmark)]
    if converted and all(item_set(one) is None for one in converted):
        raise UserError(
            f"{where}.protocol: task {task} is {native(converted[0])} and its items have no options: it has no "
            f"protocol {benchmark.protocol}" + ("" if benchmark.prompt == "own" else f", prompt {benchmark.prompt}")
        )
    if benchmark.prompt == "free" and any((found := item_set(one)) and found.listed for one in converted):
        raise UserError(f"{where}.prompt: the questions of task {task} list their options; options or cot")
    metrics = set.intersection(*({*computes(one, benchmark)} for one in tasks))
    if benchmark.metric.partition(",")[0] not in metrics:
        raise UserError(
            f"{where}.metric: task {task} does not compute {benchmark.metric!r}{nearest(benchmark.metric, metrics)}"
        )
    for one in tasks:
        _check_filter(where, task, one, benchmark)


def _check_filter(where: str, task: str, config: Mapping[str, Any], benchmark: Benchmark) -> None:
    """Refuse a metric that several filters of a task compute, or a filter that it has not."""
    metric, _, chain = benchmark.metric.partition(",")
    converted = item_set(config) is not None and is_converted(config, benchmark)
    chains = [] if converted else [str(one["name"]) for one in config.get("filter_list") or []]
    if (chain and chain not in (chains or ["none"])) or (not chain and len(chains) > 1):
        known = ", ".join(f"{metric},{name}" for name in chains or ["none"])
        raise UserError(
            f"{where}.metric: task {task} computes {metric} as {known}; {benchmark.metric!r} is none of these"
        )


def computes(config: Mapping[str, Any], benchmark: Benchmark) -> list[str]:
    """The metrics of a task, whose config is plain data, under the benchmark's protocol and prompt."""
    if item_set(config) is not None and is_converted(config, benchmark):
        return ["acc"] if benchmark.protocol == "generative" else list(LIKELIHOOD_METRICS)
    own = [str(one["metric"]).rpartition(".")[2] for one in config.get("metric_list", [])]
    own = [{"pass_at_k": "pass@1"}.get(metric, metric) for metric in own]
    ranks = config.get("output_type") == "multiple_choice"
    if ranks and config.get("process_results") is None:
        return [*dict.fromkeys([*own, *LIKELIHOOD_METRICS])]
    return [*own, "acc_tokens"] if ranks else own
