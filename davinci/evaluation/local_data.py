"""Files of a task's data set on this machine, in the schema that its hub has.

With ``evaluation.data`` a task's splits are read from ``<folder>/<split>.jsonl`` (or .json, .parquet). In a group each
task may have a folder of its own, named as the task or as the data set's configuration; else they share the group's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from davinci.config import Evaluation
from davinci.errors import UserError

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def splits(config: Mapping[str, Any], shots: int) -> list[str]:
    """The splits that a task reads: the one it is scored on, then the examples' where there are any."""
    scored = config.get("test_split") or config.get("validation_split")
    examples = config.get("fewshot_config") or {}
    wanted = [str(scored)]
    if shots and not examples.get("samples"):
        own = examples.get("split") or config.get("fewshot_split") or config.get("training_split")
        wanted.append(str(own or config.get("validation_split") or scored))
    return list(dict.fromkeys(wanted))


def root(evaluation: Evaluation, name: str, task: str) -> Path | None:
    """Where the data of the benchmark `name`, of the lm-eval task `task`, is said to lie; None means the hub."""
    if evaluation.data is None:
        return None
    if isinstance(evaluation.data, str):
        return Path(evaluation.data) / (name if (Path(evaluation.data) / name).is_dir() else task)
    said = evaluation.data.get(name, evaluation.data.get(task))
    return None if said is None else Path(said)


def files(folder: Path, config: Mapping[str, Any], shots: int) -> dict[str, Path]:
    """The file of each split that a task reads.

    Args:
        folder: of the task, or of the group it is in.
        config: lm-eval's of the task.
        shots: examples before each question.

    Raises:
        UserError: a file that is missing; it says which, and what it must hold.
    """
    wanted = splits(config, shots)
    if folder.is_file() and len(wanted) == 1:
        return {wanted[0]: folder}
    places = [folder / str(config[key]) for key in ("task", "dataset_name") if config.get(key)]
    place = next((one for one in places if one.is_dir()), folder)
    found = {}
    for split in wanted:
        file = next((path for end in FORMATS if (path := place / f"{split}{end}").is_file()), None)
        if file is None:
            raise UserError(
                f"evaluation.data: no {place / split}.jsonl (or .json, .parquet) for task {config['task']}; put there "
                f"the rows of split {split} of {config.get('dataset_path')}, a JSON object a line, fields as on the hub"
            )
        if file.stat().st_size == 0:
            raise UserError(f"evaluation.data: {file}: no rows; task {config['task']} reads split {split} from it")
        found[split] = file
    return found


def overrides(found: Mapping[str, Path], config: Mapping[str, Any]) -> dict[str, Any]:
    """What reads `found` in place of the hub, as keys of lm-eval's config."""
    kinds = {FORMATS[file.suffix] for file in found.values() if file.suffix in FORMATS}
    if len(kinds) != 1:
        names = ", ".join(str(file) for file in found.values())
        raise UserError(f"evaluation.data: {names}: files of one kind are read, .jsonl, .json or .parquet")
    changes: dict[str, Any] = {
        "dataset_path": kinds.pop(),
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(file.resolve()) for split, file in found.items()}},
    }
    for key in ("training_split", "validation_split", "fewshot_split"):
        if config.get(key) and config[key] not in found:
            changes[key] = None  # not read, but lm-eval would look for it
    return changes
