"""What was read of many files, kept beside the store so that only files that changed are read again.

``STORE/cache/<what>/<sweep>/*.arrow``: a file for each time and process that read something new, believed for as long
as the file that it was made from has the size and time it had. The folder can be deleted; where it cannot be written,
nothing is kept. Where much is new, other processes read part of it (`analysis.readers`).
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from davinci.store import file_digest

_PIECES = 8  # files in a folder before they are made one
_SCHEMA = pa.schema(
    [("name", pa.string()), ("stamp", pa.string()), ("about", pa.binary()), ("data", pa.large_binary())]
)


@dataclass(frozen=True)
class Piece:
    """What is kept of one file: `about` is JSON, `arrays` are of numbers of 8 bytes."""

    about: dict[str, Any]
    arrays: Sequence[np.ndarray]


@dataclass(frozen=True)
class Job:
    """A file to read: its name, where it is, what it was when it was looked at (`stamp`), and its bytes."""

    name: str
    path: Path
    stamp: str
    size: int


# Reads a file; None where it cannot. A function of a module, so that another process finds it by its name.
Parse = Callable[[Path], Piece | None]


def read_files(
    folder: Path, files: Mapping[str, Path], parse: Parse, programs: Sequence[str] = ()
) -> tuple[dict[str, Piece], list[str]]:
    """What `parse` makes of `files`, by name, and the names of those for which it had to be called.

    Args:
        folder: of what is kept.
        files: by name; those that are not there are left out of the answer.
        parse: reads a file.
        programs: source files, beside that of `parse`, that decide what is kept: when they change, everything is read
            again.
    """
    from analysis import readers

    program = _digest((parse.__code__.co_filename, *programs))
    jobs = {name: job for name, path in files.items() if (job := _job(name, path))}
    stamps = {name: job.stamp for name, job in jobs.items()}
    kept = sorted(folder.glob("*.arrow"))
    found = opened(kept, stamps, program)
    fresh = [job for name, job in jobs.items() if name not in found]
    if fresh:
        with _writable(folder) as into:
            pieces, written = readers.read(parse, fresh, program, into)
            found |= opened(written, stamps, program) | pieces
            if len(kept) + len(written) + 1 > _PIECES:
                write(into, found, stamps, program)
                for path in (*kept, *written):
                    path.unlink(missing_ok=True)
            elif pieces:
                write(into, pieces, stamps, program)
    return found, [job.name for job in fresh]


def opened(paths: Sequence[Path], stamps: Mapping[str, str], program: str) -> dict[str, Piece]:
    """The pieces in files that `write` wrote whose stamp is the one in `stamps`; a broken file has none."""
    found: dict[str, Piece] = {}
    for path in paths:
        with suppress(OSError, pa.ArrowException, ValueError):
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            if (table.schema.metadata or {}).get(b"program") == program.encode():
                found.update(_unpacked(table, stamps))
    return found


def write(folder: Path, pieces: Mapping[str, Piece], stamps: Mapping[str, str], program: str) -> Path | None:
    """Write `pieces` into a new file of `folder`; None where that cannot be done."""
    columns: dict[str, Any] = {name: [] for name in ("name", "stamp", "about")}
    flat: list[np.ndarray] = []
    ends = [0]
    for name, piece in pieces.items():
        shapes = [(array.dtype.str, array.shape) for array in piece.arrays]
        columns["name"].append(name)
        columns["stamp"].append(stamps[name])
        columns["about"].append(json.dumps(piece.about | {"arrays": shapes}).encode())
        flat += [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in piece.arrays]
        ends.append(ends[-1] + sum(array.nbytes for array in piece.arrays))
    # Copied once: of a large sweep these are hundreds of megabytes.
    data = np.concatenate(flat) if flat else np.empty(0, np.uint8)
    buffers = [None, pa.py_buffer(np.array(ends, np.int64)), pa.py_buffer(data)]
    columns["data"] = pa.Array.from_buffers(pa.large_binary(), len(pieces), buffers)
    table = pa.table(columns, schema=_SCHEMA.with_metadata({"program": program}))
    path = folder / f"{time.time_ns():020d}-{os.getpid()}.arrow"
    temporary = path.with_suffix(".writing")
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        temporary.replace(path)  # not synced: what a power cut leaves of it is no Arrow file
    except OSError:
        temporary.unlink(missing_ok=True)
        return None
    return path


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


@contextmanager
def _writable(folder: Path) -> Iterator[Path]:
    """`folder`, or a passing one where it cannot be written: a store that only others may write."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        possible = False
    else:
        possible = os.access(folder, os.W_OK)
    if possible:
        yield folder
    else:
        with tempfile.TemporaryDirectory() as passing:
            yield Path(passing)


@cache
def _digest(programs: tuple[str, ...]) -> str:
    return "-".join(file_digest(Path(path))[:16] for path in (__file__, *programs))


def _job(name: str, path: Path) -> Job | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return Job(name, path, f"{status.st_size} {status.st_mtime_ns}", status.st_size)
