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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from davinci.store import file_digest, from_json

if TYPE_CHECKING:
    from analysis.readers import Others

_PIECES = 8  # files in a folder before they are made one
_BATCH = 64  # pieces that are written and read as one
_TEXTS, _ARRAYS = ("name", "stamp", "about"), ("first", "second")
_SCHEMA = pa.schema([(name, pa.large_string()) for name in _TEXTS] + [(name, pa.large_binary()) for name in _ARRAYS])


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
    folder: Path, files: Mapping[str, Path], parse: Parse, others: Others, programs: Sequence[str] = ()
) -> tuple[dict[str, Piece], list[str]]:
    """What `parse` makes of `files`, by name, and the names of those for which it had to be called.

    Args:
        folder: of what is kept.
        files: by name; those that are not there are left out of the answer.
        parse: reads a file.
        others: processes that help where there is much to read.
        programs: source files, beside that of `parse`, that decide what is kept: when they change, everything is read
            again.
    """
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
            pieces, written = others.read(parse, fresh, program, into)
            shared = opened(written, stamps, program)
            left = [job for job in fresh if job.name not in pieces and job.name not in shared]
            pieces |= parsed(parse, left)
            found |= shared | pieces
        old = [*kept, *written]
        if into == folder and len(old) >= _PIECES:
            _write_later(folder, found, stamps, program, instead_of=old)
        elif into == folder and pieces:
            _write_later(folder, pieces, stamps, program)
    return found, [job.name for job in fresh]


def parsed(parse: Parse, jobs: Iterable[Job]) -> dict[str, Piece]:
    """What this process reads of `jobs`, by name."""
    return {job.name: piece for job in jobs if (piece := parse(job.path)) is not None}


# By folder what is still being written: nothing of a load waits for that but its process's end.
_writing: dict[Path, threading.Thread] = {}


def _write_later(
    folder: Path, pieces: Mapping[str, Piece], stamps: Mapping[str, str], program: str, instead_of: Sequence[Path] = ()
) -> None:
    def run() -> None:
        if write(folder, [(pieces, stamps)], program) is not None:
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
                    batch = file.get_batch(index)
                    texts = (batch.column(place).to_pylist() for place in range(len(_TEXTS)))
                    arrays = (_slices(batch.column(place)) for place in range(len(_TEXTS), len(_SCHEMA)))
                    for name, stamp, about, *data in zip(*texts, *arrays, strict=True):
                        if stamps.get(name) == stamp:
                            found[name] = _piece(about, data)
    return found


def write(folder: Path, portions: Iterable[tuple[Mapping[str, Piece], Mapping[str, str]]], program: str) -> Path | None:
    """Write pieces, with the stamps of their files, into a new file of `folder` as they come; None where that cannot be
    done."""
    schema = _SCHEMA.with_metadata({"program": program})
    path = folder / f"{time.time_ns():020d}-{os.getpid()}.arrow"
    temporary = path.with_suffix(".writing")
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for pieces, stamps in portions:
                items = list(pieces.items())
                for some in (items[start : start + _BATCH] for start in range(0, len(items), _BATCH)):
                    texts = zip(*((name, stamps[name], _said(piece)) for name, piece in some), strict=True)
                    arrays = zip(*(piece.arrays for _, piece in some), strict=True)
                    columns = [*map(_text_column, texts), *map(_column, arrays)]
                    writer.write_batch(pa.record_batch(columns, schema=schema))
        temporary.replace(path)  # not synced: what a power cut leaves of it is no Arrow file
    except OSError:
        temporary.unlink(missing_ok=True)
        return None
    return path


def _said(piece: Piece) -> str:
    return json.dumps(piece.about | {"arrays": [(array.dtype.str, array.shape) for array in piece.arrays]})


def _piece(said: str, data: Sequence[np.ndarray]) -> Piece:
    about = from_json(said)
    first, second = (
        numbers.view(kind).reshape(shape) for numbers, (kind, shape) in zip(data, about.pop("arrays"), strict=True)
    )
    return Piece(about, (first, second))


def _text_column(texts: Sequence[str]) -> pa.Array:
    return _column([np.frombuffer(text.encode(), np.uint8) for text in texts]).view(pa.large_string())


def _column(arrays: Sequence[np.ndarray]) -> pa.Array:
    """The bytes of each array as one value; not by `pa.array`, which copies them twice."""
    flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
    ends = np.cumsum([0, *map(len, flat)])
    return pa.Array.from_buffers(
        pa.large_binary(), len(flat), [None, pa.py_buffer(ends), pa.py_buffer(np.concatenate(flat))]
    )


def _slices(column: pa.Array) -> Iterator[np.ndarray]:
    """uint8 views of the values of a column that `_column` made."""
    _, ends, data = column.buffers()
    whole = np.frombuffer(data, np.uint8) if data.size else np.empty(0, np.uint8)
    bounds = np.frombuffer(ends, np.int64, len(column) + 1).tolist()
    return (whole[start:end] for start, end in pairwise(bounds))


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
