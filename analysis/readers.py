"""Reading many files: where there is much to read, with the help of other processes.

The files are dealt out in portions. Another process (`main`) is handed one after the other, and at the end leaves what
it read in a file of `analysis.kept`, which this one maps into its memory. What a process failed at is in no file.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from analysis.kept import Job, Parse, Piece, write

_WORTH = 64 * 2**20  # bytes to read that keep a process busy for longer than it takes to start
_OPENING = 150_000  # bytes that can be read in the time that a file takes however small it is
_PORTIONS = 16  # for each process
_MOST = 8  # processes
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from analysis.readers import main; main()"


def read(parse: Parse, jobs: Sequence[Job], program: str, into: Path) -> tuple[dict[str, Piece], list[Path]]:
    """What was read here, by name, and the files in `into` that hold what others read."""
    weight = sum(_OPENING + job.size for job in jobs)
    count = max(0, min(_processors(), _MOST, weight // _WORTH) - 1)
    portions = deque(_portions(jobs, weight / (_PORTIONS * (count + 1))))
    others = [_Other(parse, portions, program, into) for _ in range(count)]
    for other in others:
        other.start()
    pieces: dict[str, Piece] = {}
    while portion := _next(portions):
        pieces |= read_here(parse, portion)
    for other in others:
        other.join()
    return pieces, [other.written for other in others if other.written]


class _Other(threading.Thread):
    """Another process that reads. `written`: the file that holds all that it read, in the end."""

    def __init__(self, parse: Parse, portions: deque[list[Job]], program: str, into: Path) -> None:
        super().__init__(daemon=True)
        self.written: Path | None = None
        self._portions = portions
        self._program = program
        about = [parse.__module__, parse.__qualname__, program, str(into)]
        self._command = [sys.executable, "-c", _START, json.dumps(sys.path), *about]

    def run(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        try:
            with subprocess.Popen(self._command, **pipes) as process:
                assert process.stdin and process.stdout
                while portion := _next(self._portions):
                    print(json.dumps([asdict(job) for job in portion], default=str), file=process.stdin, flush=True)
                    if not process.stdout.readline():
                        return
                process.stdin.close()
                written = process.stdout.readline().strip()
        except OSError:
            return
        self.written = Path(written) if written else None


def main() -> None:
    """Read the portions on standard input, a JSON list of jobs a line; at its end say where what was read lies."""
    gc.disable()
    module, name, program, into = sys.argv[2:]
    parse = getattr(import_module(module), name)
    pieces: dict[str, Piece] = {}
    stamps: dict[str, str] = {}
    for line in sys.stdin:
        portion = [Job(**job | {"path": Path(job["path"])}) for job in json.loads(line)]
        pieces |= read_here(parse, portion)
        stamps |= {job.name: job.stamp for job in portion}
        print("read", flush=True)
    print(write(Path(into), pieces, stamps, program) or "", flush=True)


def read_here(parse: Parse, jobs: Sequence[Job]) -> dict[str, Piece]:
    return {job.name: piece for job in jobs if (piece := parse(job.path)) is not None}


def _next(portions: deque[list[Job]]) -> list[Job]:
    try:
        return portions.popleft()
    except IndexError:
        return []


def _portions(jobs: Sequence[Job], weight: float) -> list[list[Job]]:
    found: list[list[Job]] = [[]]
    held = 0
    for job in jobs:
        found[-1].append(job)
        held += _OPENING + job.size
        if held > weight:
            found.append([])
            held = 0
    return [portion for portion in found if portion]


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
