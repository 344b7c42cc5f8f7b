"""The launcher's side of the W&B mirror: one subprocess for the whole sweep, which can harm nothing."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from davinci.config import Tracking
from davinci.launching.mirror_log import last_error, log_path
from davinci.launching.progress import Display
from davinci.store import Store
from davinci.tracking import wandb_mirror

# Once all runs are over, the launcher waits for the mirror as long as it says something every so many seconds.
PATIENCE = 90.0


def command(sweep: str, store: Store, end: Literal["watch", "told"]) -> list[str]:
    """What mirrors `sweep` as it was launched, until it sees that the sweep is over or is told (see `mirror_watch`)."""
    return [sys.executable, "-m", "davinci", "sync", sweep, "--store", str(store.root), f"--{end}"]


class Mirror:
    """Mirrors the sweep to W&B from a separate process: online while runs train, offline as they finish.

    A context manager that waits for it at the end.
    """

    def __init__(self, sweep: str, store: Store, tracking: Tracking, display: Display) -> None:
        self._sweep = sweep
        self._store = store
        self._tracking = tracking
        self._display = display
        self._log = log_path(store, sweep)
        self._sent: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._view: wandb_mirror.Mirror | None = None

    def start(self) -> None:
        """Begin, where there is something to mirror before a run has finished."""
        if self._tracking.mode == "online" and self._process is None:
            self._process = self._start()

    def add(self, run: str) -> None:
        """Have the finished run `run` mirrored, unless it already is."""
        if self._tracking.mode == "disabled" or run in self._sent:
            return
        if self._process is None:
            self._view = self._view or wandb_mirror.Mirror(self._store, self._sweep, None, print)
            if self._view.is_mirrored(run):
                return
            self._process = self._start()
        assert self._process.stdin is not None
        self._sent.add(run)
        with suppress(OSError):  # It died; the end of the launch says so.
            self._process.stdin.write(f"{run}\n".encode())
            self._process.stdin.flush()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            return subprocess.Popen(
                command(self._sweep, self._store, "told"),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                process_group=0,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        later = f"python -m davinci sync {self._sweep} --store {shlex.quote(str(self._store.root))}"
        if self._tracking.mode == "offline":
            later += " --offline"
        try:
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.close()
            status = _wait(self._process, self._log)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
            self._display.say(f"W&B did not finish in time and was stopped; later: {later}", "yellow")
            return
        if status:
            why = last_error(self._store, self._sweep) or f"exit status {status}"
            self._display.say(f"W&B: {why} (log: {self._log}); later: {later}", "yellow")
        elif self._sent:
            self._display.say(
                f"W&B: {len(self._sent)} runs mirrored {self._tracking.mode} ({self._store.wandb})", "dim"
            )


def _wait(process: subprocess.Popen[bytes], log: Path) -> int:
    """Exit status of `process`, once it is over.

    Raises:
        subprocess.TimeoutExpired: nothing came to `log` for `PATIENCE` seconds.
    """
    size, deadline = 0, time.monotonic() + PATIENCE
    while True:
        try:
            return process.wait(timeout=max(0.0, min(1.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            if (now := log.stat().st_size) > size:
                size, deadline = now, time.monotonic() + PATIENCE
            elif time.monotonic() >= deadline:
                raise
