"""What was read of many files, kept beside the store so that only files that changed are read again.

``STORE/cache/<what>/<sweep>/*.arrow``: a file for each time and process that read something new, believed for as long
as the file that it was made from has the size and time it had. The folder can be deleted; where it cannot be written,
nothing is kept. Where much is new, other processes read part of it (`analysis.readers`).
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
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
_SCHEMA = pa.schema([(name, pa.large_binary()) for name in ("name", "stamp", "about", "first", "second")])


@dataclass(frozen=True)
class Piece:
    """What is kept of one file: `about` is JSON, `arrays` are of numbers."""

    about: dict[str, Any]
    arrays: tuple[np.ndarray, np.ndarray]


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

    if (writing := _writing.pop(folder, None)) is not None:
        writing.join()
    program = _digest((parse.__code__.co_filename, *programs))
    jobs = {name: job for name, path in files.items() if (job := _job(name, path))}
    stamps = {name: job.stamp for name, job in jobs.items()}
    kept = sorted(folder.glob("*.arrow"))
    found = opened(kept, stamps, program)
    fresh = [job for name, job in jobs.items() if name not in found]
    if fresh:
        with _writable(folder) as into:
            pieces, written = readers.read(parse, fresh, program, into)
            shared = opened(written, stamps, program)
            pieces |= readers.read_here(parse, [job for job in fresh if job.name not in pieces | shared])
            found |= shared | pieces
        old = [*kept, *written]
        if into == folder and len(old) >= _PIECES:
            _write_later(folder, found, stamps, program, instead_of=old)
        elif into == folder and pieces:
            _write_later(folder, pieces, stamps, program)
    return found, [job.name for job in fresh]


# By folder what is still being written: nothing of a load waits for that but its process's end.
_writing: dict[Path, threading.Thread] = {}


def _write_later(
    folder: Path, pieces: Mapping[str, Piece], stamps: Mapping[str, str], program: str, instead_of: Sequence[Path] = ()
) -> None:
    def run() -> None:
        if write(folder, pieces, stamps, program) is not None:
            for path in instead_of:
                path.unlink(missing_ok=True)

    _writing[folder] = threading.Thread(target=run)
    _writing[folder].start()


def opened(paths: Sequence[Path], stamps: Mapping[str, str], program: str) -> dict[str, Piece]:
    """The pieces in files that `write` wrote whose stamp is the one in `stamps`; a broken file has none."""
    found: dict[str, Piece] = {}
    for path in paths:
        with suppress(OSError, pa.ArrowException, ValueError), pa.memory_map(str(path)) as source:
            file = pa.ipc.open_file(source)
            if (file.schema.metadata or {}).get(b"program") == program.encode():
                for index in range(file.num_record_batches):
                    name, stamp, *rest = (column[0].as_buffer() for column in file.get_batch(index).columns)
                    if stamps.get(text := name.to_pybytes().decode()) == stamp.to_pybytes().decode():
                        found[text] = _piece(*rest)
    return found


def write(folder: Path, pieces: Mapping[str, Piece], stamps: Mapping[str, str], program: str) -> Path | None:
    """Write `pieces` into a new file of `folder`; None where that cannot be done."""
    schema = _SCHEMA.with_metadata({"program": program})
    path = folder / f"{time.time_ns():020d}-{os.getpid()}.arrow"
    temporary = path.with_suffix(".writing")
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for name, piece in pieces.items():
                arrays = [np.ascontiguousarray(array) for array in piece.arrays]
                about = piece.about | {"arrays": [(array.dtype.str, array.shape) for array in arrays]}
                texts = [np.frombuffer(text.encode(), np.uint8) for text in (name, stamps[name], json.dumps(about))]
                writer.write_batch(pa.record_batch([_bytes(array) for array in (*texts, *arrays)], schema=schema))
        temporary.replace(path)  # not synced: what a power cut leaves of it is no Arrow file
    except OSError:
        temporary.unlink(missing_ok=True)
        return None
    return path


def _piece(about: pa.Buffer, *data: pa.Buffer) -> Piece:
    said = json.loads(about.to_pybytes())
    first, second = (
        np.frombuffer(buffer, kind).reshape(shape) if buffer.size else np.empty(shape, kind)
        for buffer, (kind, shape) in zip(data, said.pop("arrays"), strict=True)
    )
    return Piece(said, (first, second))


def _bytes(array: np.ndarray) -> pa.Array:
    """One value of bytes that are the array's own: of a large sweep these are hundreds of megabytes."""
    ends = pa.py_buffer(np.array([0, array.nbytes], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(array)])


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
