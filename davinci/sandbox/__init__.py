"""Runs programs that a model wrote, or a document holds, each in a process of its own that can reach no network, no
other process and no file to write.

What confines a program, and what is refused where, is said in `child`. It is made against what language models write
by accident, not against an attacker: files can be read, and a program that set out to find the word its verdict is sent
with could claim to have passed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from davinci.errors import UserError

Isolation = Literal["isolated", "best_effort"]

# How a program ends: its tests passed; an assertion failed; another exception; it ended before its tests did; it ran
# out of a limit (time, memory); it wanted what is refused (processes, network, files, other calls); a signal ended it.
KINDS = ("passed", "wrong", "error", "exit", "time", "memory", "processes", "network", "files", "refused", "crash")

SECONDS = 3.0  # as HumanEval's own evaluation allows (arXiv 2107.03374, section 2.3)
MEMORY = 1 << 30
DISK = 16 << 20

_CHILD = Path(__file__).with_name("child.py")
START_SECONDS = 30.0
_REPORT_BYTES = 4096


@dataclass(frozen=True)
class Outcome:
    """How a program ended (one of `KINDS`), and the exception's name where there was one."""

    kind: str
    detail: str = ""


def run_all(
    programs: Sequence[str],
    isolation: Isolation = "isolated",
    *,
    seconds: float = SECONDS,
    setting: str = "evaluation.run_code",
) -> list[Outcome]:
    """The outcomes of the programs, in order, as many at a time as there are cores."""
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda program: run(program, isolation, seconds=seconds, setting=setting), programs))


def run(
    program: str,
    isolation: Isolation = "isolated",
    *,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    disk: int = DISK,
    setting: str = "evaluation.run_code",
) -> Outcome:
    """Run one Python program to its end or to a limit.

    Args:
        program: its source, tests included; it passes if it reaches its last line.
        isolation: what to do where network, files or processes cannot be kept from it: refuse, or run it all the same.
        seconds: wall-clock time.
        memory: bytes of address space.
        disk: bytes that it may write in its working folder, which is gone afterwards.
        setting: the config key that says `isolation`, for messages.

    Raises:
        UserError: this machine cannot confine it and `isolation` is ``isolated``.
    """
    word = secrets.token_hex(16)
    request = {
        "program": program, "word": word, "seconds": seconds, "memory": memory, "disk": disk,
        "strict": isolation == "isolated",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="davinci-sandbox-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            report = _report(process, json.dumps(request).encode(), word, seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
    kind, _, detail = report.partition(":")
    if kind == "unconfined":
        raise UserError(
            f"{setting}=isolated: on this machine a process cannot be kept from {detail} (neither user "
            f"namespaces nor seccomp); {setting}=best_effort runs the code all the same"
        )
    if kind == "broken":  # no fault of the program's: a score of 0 would be a lie
        raise UserError(f"{setting}={isolation}: the sandbox cannot be set up on this machine ({detail})")
    return Outcome(kind, detail)


def _report(process: subprocess.Popen[bytes], request: bytes, word: str, seconds: float) -> str:
    """What the child says of the program; its time counts from when the child is ready."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(request)
        process.stdin.close()
    pipe = process.stdout.fileno()
    said, started, deadline = b"", False, time.monotonic() + START_SECONDS
    while len(said) < _REPORT_BYTES:
        readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(pipe, _REPORT_BYTES) if readable else b""
        if not readable and started:
            return "time:"
        if not part:
            break
        said += part
        if not started and said.startswith(f"{word} ready\n".encode()):
            started, deadline = True, time.monotonic() + seconds
        lines = said.decode("utf-8", errors="replace").split("\n")
        for line in lines[:-1]:
            if line.startswith(f"{word} ") and line != f"{word} ready":
                return line.removeprefix(f"{word} ")
    if not started:
        return "broken:it did not start"
    # Nobody is left to write: the program ended itself before its tests did.
    return "exit:"
