"""Item files of the embedded benchmarks: the rows lm-eval reads.

A benchmark's items are one JSON a line in ``store.pool(p)/tasks/<file>``; the field ``split`` is ``test`` or
``fewshot``. `dataset` is what the task files name as ``custom_dataset``: plain rows in memory, so that several workers
share no cache folder and no lock, and a pass does not decode them from a table twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from davinci.errors import UserError

SPLITS = ("test", "fewshot")


def read_items(path: Path) -> list[dict[str, Any]]:
    """All rows of an item file; a missing one is a UserError that says how to make it."""
    if not path.is_file():
        pool = path.parent.parent.name
        raise UserError(f"{path}: no such benchmark items; build the pool: python -m davinci data build {pool}")
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Rows(list[dict[str, Any]]):
    """Rows of one split; `features` is what lm-eval asks of a data set."""

    @property
    def features(self) -> dict[str, None]:
        return dict.fromkeys(self[0])


def dataset(folder: str, file: str, **_: object) -> dict[str, Rows]:
    """The rows of one item file by split.

    Args:
        folder: the pool's tasks folder, given to lm-eval's TaskManager as metadata.
        file: the item file's name, from the task file's ``dataset_kwargs``.
    """
    rows = read_items(Path(folder) / file)
    splits = {name: Rows(row for row in rows if row["split"] == name) for name in SPLITS}
    return {name: part for name, part in splits.items() if part}
