"""Append-only records: one JSON line a row, the truth about a node's training.

Every row has ``kind``, ``attempt``, ``tokens`` (since initialisation), ``step`` (since initialisation) and ``time``
(seconds since 1970). Kinds and their further values:

- ``train``: loss (nats a token), ``loss/<domain>``, lr, grad_norm, tokens_per_second, batch (sequences),
  ``update_ratio`` and ``update_ratio/<kind of layer>``, ``epochs/<source>``, mfu (where the accelerator's peak is
  known), world (ranks that trained together, where more than one; heldout rows too). With experts
  ``router/<figure>`` and ``router/<figure>/<layer>``, figures load_max, entropy, unused and balance; and
  ``router/bias_min`` and ``router/bias_max``, where there are biases.
- ``spike``, a row a step that is one: loss, grad_norm, loss_limit, grad_norm_limit, skipped.
- ``heldout``, a row a domain: domain, loss (nats a token), bits_per_byte, sequences.
- ``probe``, a row a capability: capability, suite (key of the set of items), items, chance, accuracy, margin (nats,
  right choice above the best wrong one), nats (of the right choice), capabilities (rows of the pass), items_per_second.
- ``evaluation``, a row a benchmark: benchmark, domain, protocol, metric, score (0 to 1), items, chance, key,
  items_file, seconds (wall time it took, loading the model in the first; 0 where another suite's results served; older
  rows lack it), truncated (items that did not fit the context) and outcomes (how programs the model wrote ended),
  where there are any, suite (`config.Evaluation.key` of the suite that asked), settings (digest of what a score
  depends on beside the weights).

A node has one writer at a time (the holder of its lock). A killed writer leaves at most one torn line behind; a
replayed step appends a second row with a higher attempt. Readers skip the first and let the last attempt win.
"""

from __future__ import annotations

import json
import math
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

# What tells two rows of one kind at one step apart.
_KEYS = ("kind", "step", "tokens", "domain", "benchmark", "protocol", "suite", "capability")
_KIND = itemgetter("kind")
_COUNTS = itemgetter("attempt", "tokens", "step")
_BLOCK = 2**22  # bytes: rows are large beside the lines they are read from


class Writer:
    """Appends rows to `path`, created with its folder when missing.

    Each row reaches the operating system before `write` returns (a SIGKILL loses none); `commit` and `close` make the
    rows survive a power cut too. `attempt` is stamped on every row.
    """

    def __init__(self, path: Path, attempt: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._attempt = attempt
        self._file: int | None = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._file).st_size
        # A torn line must not swallow the first row after it.
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def write(self, kind: str, tokens: int, step: int, **values: Any) -> None:
        """Append one row. `values` are JSON-like; a float that is not finite is stored as null."""
        if self._file is None:
            raise ValueError("the writer is closed")
        row = {"kind": kind, "attempt": self._attempt, "tokens": tokens, "step": step, "time": round(time.time(), 3)}
        row.update((name, _finite(value)) for name, value in values.items())
        line = memoryview((json.dumps(row, allow_nan=False) + "\n").encode())
        while line:
            line = line[os.write(self._file, line) :]

    def commit(self) -> None:
        """Sync everything written so far to the disk."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """Commit and close; closing twice is allowed."""
        if self._file is not None:
            self.commit()
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Rows of `path` sorted by tokens, those of one kind if it is given; empty when there is no such file.

    Of rows alike in kind, step, tokens, domain, benchmark, protocol, suite and capability the one of the highest
    attempt is kept, the last one of that attempt. Torn lines are skipped.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    if kind is not None:
        wanted = f'"kind": "{kind}"'.encode()  # as `Writer` writes it
        data = b"\n".join(line for line in data.split(b"\n") if wanted in line)
    return latest(_parsed(data))


def blocks(path: Path) -> Iterator[list[dict[str, Any]]]:
    """All rows of `path` in the order in which they were written, some megabytes of them at a time.

    Raises:
        OSError: there is no such file.
    """
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        while data := file.read(min(left, _BLOCK)):
            left -= len(data)
            yield _parsed(data + file.readline())


def _parsed(data: bytes) -> list[dict[str, Any]]:
    """The rows of whole lines in their order; a torn line is left out: it is never a whole JSON object."""
    try:  # in one go, several times faster than line by line
        rows: list[dict[str, Any]] = orjson.loads(b"[" + data.rstrip(b"\n").replace(b"\n", b",") + b"]")
        array("q", list(chain.from_iterable(map(_COUNTS, rows))))
        if set(map(type, map(_KIND, rows))) <= {str}:
            return rows
    except (ValueError, TypeError, KeyError, OverflowError):
        pass
    return [row for line in data.split(b"\n") if line and (row := _row(line)) is not None]


def latest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ones of `rows` that count (see `read`), sorted by tokens."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(str(row.get(name)) for name in _KEYS)
        if key not in kept or row["attempt"] >= kept[key]["attempt"]:
            kept[key] = row
    return sorted(kept.values(), key=lambda row: row["tokens"])


def _row(line: bytes) -> dict[str, Any] | None:
    """The row of one line, or None if the line is torn or no row."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        return None
    counts = [row.get(name) for name in ("attempt", "tokens", "step")]
    return row if all(type(count) is int and abs(count) < 2**63 for count in counts) else None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
