"""Reading many files: where there is much to read, with the help of other processes.

The files are dealt out in portions. Another process (`main`) is handed one after the other, and leaves what it read in
a file of `analysis.kept`, which this one maps into its memory. What a process failed at is in no file.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from analysis.kept import Job, Parse, Piece, parsed, write

_WORTH = 64 * 2**20  # bytes to read that keep a process busy for longer than it takes to start
_OPENING = 150_000  # bytes that can be read in the time that a file takes however small it is
_PORTIONS = 16  # for each process
_MOST = 8  # processes
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from analysis.readers import main; main()"


class Others:
    """Other processes that read, started where they are worth it; they are told to end with the `with` block."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Others:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:  # a process takes a while to give back its memory: nobody waits for that
            threading.Thread(target=process.communicate).start()

    def read(self, parse: Parse, jobs: Sequence[Job], program: str, into: Path) -> tuple[dict[str, Piece], list[Path]]:
        """What was read here, by name, and the files in `into` that hold what others read."""
        from davinci.accounting.machine import cores  # pydantic, which the other processes need not wait for

        weight = sum(_OPENING + job.size for job in jobs)
        count = max(0, min(cores(), _MOST, weight // _WORTH) - 1)
        portions = deque(_portions(jobs, weight / (_PORTIONS * (count + 1))))
        while len(self._processes) < count:
            command = [sys.executable, "-c", _START, json.dumps(sys.path)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._processes.append(subprocess.Popen(command, **pipes, text=True))
        task = json.dumps([parse.__module__, parse.__qualname__, program, str(into)])
        pieces: dict[str, Piece] = {}
        with ThreadPoolExecutor(max(count, 1)) as threads:
            asked = [threads.submit(_ask, process, task, portions) for process in self._processes[:count]]
            while portion := _next(portions):
                pieces |= parsed(parse, portion)
        return pieces, [path for one in asked if (path := one.result())]


def main() -> None:
    """Line by line on standard input: a task, its portions (JSON lists of jobs), an empty one. Answers each portion;
    the empty one with the path of the file that holds what was read."""
    gc.disable()
    for task in sys.stdin:
        module, name, program, into = json.loads(task)
        print(write(Path(into), _asked(getattr(import_module(module), name)), program) or "", flush=True)


def _asked(parse: Parse) -> Iterator[tuple[Mapping[str, Piece], Mapping[str, str]]]:
    for line in sys.stdin:
        portion = [Job(**job | {"path": Path(job["path"])}) for job in json.loads(line)]
        if not portion:
            return
        yield parsed(parse, portion), {job.name: job.stamp for job in portion}
        print("read", flush=True)


def _ask(process: subprocess.Popen[str], task: str, portions: deque[list[Job]]) -> Path | None:
    """Have `process` read portions as long as there are any; the file it wrote, None where it failed."""
    assert process.stdin and process.stdout
    try:
        print(task, file=process.stdin)
        while True:
            portion = _next(portions)
            print(json.dumps([asdict(job) for job in portion], default=str), file=process.stdin, flush=True)
            said = process.stdout.readline().strip()
            if not portion or not said:
                return Path(said) if said else None
    except OSError:
        return None


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
