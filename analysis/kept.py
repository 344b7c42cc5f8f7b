"""What was read of many files, kept beside the store so that only files that changed are read again.

``STORE/cache/<what>/<sweep>/*.arrow``: a file for each time that something was new, believed for as long as the file
that it was made from has the size and time it had. The folder can be deleted; where it cannot be written, nothing is
kept.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from davinci.store import atomic_file, file_digest

_PIECES = 8  # files in a folder before they are made one
_SCHEMA = pa.schema(
    [("name", pa.string()), ("stamp", pa.string()), ("about", pa.binary()), ("data", pa.large_binary())]
)


@dataclass(frozen=True)
class Piece:
    """What is kept of one file: `about` is JSON, `arrays` are of numbers of 8 bytes."""

    about: dict[str, Any]
    arrays: Sequence[np.ndarray]


def read_files(
    folder: Path, files: Mapping[str, Path], parse: Callable[[Path], Piece | None], programs: Sequence[str]
) -> tuple[dict[str, Piece], list[str]]:
    """What `parse` makes of `files`, by name, and the names of those for which it had to be called.

    Args:
        folder: of what is kept.
        files: by name; those that are not there are left out of the answer.
        parse: reads a file, None where it cannot; called from several threads.
        programs: source files that decide what is kept: when they change, everything is read again.
    """
    program = _digest(tuple(programs))
    stamps = {name: stamp for name, path in files.items() if (stamp := _stamp(path))}
    found: dict[str, Piece] = {}
    pieces: list[Path] = []
    for path in sorted(folder.glob("*.arrow")):
        with suppress(OSError, pa.ArrowException, ValueError):
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            pieces.append(path)
            if (table.schema.metadata or {}).get(b"program") == program:
                found.update(_unpacked(table, stamps))
    fresh = [name for name in stamps if name not in found]
    if fresh:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # Arrow's readers let go of the interpreter
            read = dict(zip(fresh, threads.map(lambda name: parse(files[name]), fresh), strict=True))
        known = {name: piece for name, piece in read.items() if piece is not None}
        crowded = len(pieces) >= _PIECES
        if known:
            _keep(folder, found | known if crowded else known, stamps, program, pieces if crowded else ())
        found |= known
    return found, fresh


def _unpacked(table: pa.Table, stamps: Mapping[str, str]) -> dict[str, Piece]:
    found = {}
    about, data = table["about"], table["data"]
    for row, (name, stamp) in enumerate(zip(table["name"].to_pylist(), table["stamp"].to_pylist(), strict=True)):
        if stamps.get(name) == stamp:
            said = json.loads(about[row].as_py())
            numbers = data[row].as_buffer()
            arrays, start = [], 0
            for kind, shape in said.pop("arrays"):
                count = math.prod(shape)
                arrays.append(np.frombuffer(numbers, kind, count, start).reshape(shape))
                start += 8 * count
            found[name] = Piece(said, arrays)
    return found


def _keep(
    folder: Path, pieces: Mapping[str, Piece], stamps: Mapping[str, str], program: bytes, instead_of: Iterable[Path]
) -> None:
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
    for name, piece in pieces.items():
        shapes = [(array.dtype.str, array.shape) for array in piece.arrays]
        columns["name"].append(name)
        columns["stamp"].append(stamps[name])
        columns["about"].append(json.dumps(piece.about | {"arrays": shapes}).encode())
        columns["data"].append(b"".join(np.ascontiguousarray(array).tobytes() for array in piece.arrays))
    table = pa.table(columns, schema=_SCHEMA.with_metadata({b"program": program}))
    with suppress(OSError):  # a store that only others may write
        with (
            atomic_file(folder / f"{time.time_ns():020d}-{os.getpid()}.arrow") as path,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
        for path in instead_of:
            path.unlink(missing_ok=True)


@cache
def _digest(programs: tuple[str, ...]) -> bytes:
    return "-".join(file_digest(Path(path))[:16] for path in (__file__, *programs)).encode()


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
