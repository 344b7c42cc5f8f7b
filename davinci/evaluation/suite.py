"""Which benchmarks exist and what their task files say: no harness and no torch is imported."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml

from davinci.config import Evaluation
from davinci.errors import UserError, nearest

Harness = Literal["embedded", "lm_eval"]

EMBEDDED_TASKS = Path(__file__).parent / "tasks"
PAPER_TASKS = Path(__file__).parent / "paper_tasks"

_NAME = re.compile(r"""^(?:task|group):[ \t]*["']?([\w.+-]+)["']?[ \t]*$""", re.MULTILINE)


class _Loader(yaml.SafeLoader):
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


def task_config(file: Path) -> dict[str, Any]:
    """A task file as plain data, its ``include`` resolved, functions left as their names."""
    config: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    included = config.pop("include", None)
    if included is None:
        return config
    return {**task_config(file.parent / included), **config}


def check(evaluation: Evaluation) -> None:
    """Refuse a benchmark whose task no file defines; of the project's own tasks also a wrong metric or protocol.

    Raises:
        UserError: naming the key, its value and the nearest known ones.
    """
    known = known_tasks(evaluation.harness)
    for name, benchmark in evaluation.benchmarks.items():
        if benchmark.task not in known:
            raise UserError(
                f"evaluation.benchmarks.{name}.task: harness {evaluation.harness} has no task {benchmark.task!r}"
                + nearest(benchmark.task, known)
            )
        if evaluation.harness != "embedded":
            continue  # of lm-eval's groups of tasks only lm-eval itself can tell
        protocol, metrics = _computes(benchmark.task)
        if benchmark.protocol != protocol:
            raise UserError(
                f"evaluation.benchmarks.{name}.protocol: task {benchmark.task} is {protocol}, not {benchmark.protocol}"
            )
        if benchmark.metric.partition(",")[0] not in metrics:
            raise UserError(
                f"evaluation.benchmarks.{name}.metric: task {benchmark.task} does not compute {benchmark.metric!r}"
                + nearest(benchmark.metric, metrics)
            )


@lru_cache
def _computes(task: str) -> tuple[str, tuple[str, ...]]:
    """Protocol and metrics of one of the project's own tasks."""
    config = task_config(task_files("embedded")[task])
    protocol = "generative" if config["output_type"] == "generate_until" else "ppl"
    return protocol, tuple(one["metric"] for one in config["metric_list"])
