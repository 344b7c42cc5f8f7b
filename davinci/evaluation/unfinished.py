"""Benchmarks that are done, of suites that are not: what a killed evaluation leaves, and the next one goes on from.

Each is a file of its own, ``evaluations/<key of the benchmark alone>.benchmark``, with the content of per-item records;
they go when the suite's one file is written. That file names the same keys, so that another suite which asks for a
benchmark in the same way reads it from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from davinci.evaluation.item_records import benchmark_keys, read, seconds_of, write

# Name endings of what is kept until a suite is done.
SUFFIX = ".benchmark"


class Unfinished:
    """The benchmarks of one suite at one checkpoint.

    Args:
        folder: where the per-item records of the checkpoint's node are.
        keys: by benchmark, the key of its results where nothing else is evaluated.
    """

    def __init__(self, folder: Path, keys: Mapping[str, str]) -> None:
        self._folder = folder
        self._keys = keys

    def found(self) -> dict[str, tuple[float, pd.DataFrame]]:
        """Score and items of each benchmark that is there, of this suite or of another that is done."""
        there = {}
        for name, key in self._keys.items():
            kept = read(self._path(key))
            if kept is not None and name in kept[0]:
                there[name] = kept[0][name], kept[1]
        wanted = {key: name for name, key in self._keys.items() if name not in there}
        for path in sorted(self._folder.glob("*.parquet")) if wanted else []:
            shared = [name for name, key in benchmark_keys(path).items() if wanted.get(key) == name]
            whole = read(path) if shared else None
            if whole is not None:
                scores, frame = whole
                there |= {name: (scores[name], frame[frame["benchmark"] == name]) for name in shared}
        return there

    def keep(self, name: str, score: float, frame: pd.DataFrame, seconds: float) -> None:
        """Keep a benchmark that is done, and how long it took."""
        write(self._path(self._keys[name]), {name: score}, frame, {name: self._keys[name]}, {name: seconds})

    def seconds(self) -> dict[str, float]:
        """How long each benchmark took that was done for this suite; one read from another suite's file took no time
        here."""
        return {name: took for key in self._keys.values() for name, took in seconds_of(self._path(key)).items()}

    def remove(self) -> None:
        """Remove what was kept, once the suite is written."""
        for key in self._keys.values():
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"
