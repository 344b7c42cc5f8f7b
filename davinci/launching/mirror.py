"""The launcher's side of the W&B mirror: one subprocess, told of runs as they finish, that can harm nothing."""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

from davinci.config import Tracking
from davinci.launching.progress import Display
from davinci.store import Store
from davinci.tracking.wandb_mirror import is_mirrored

# How long the launcher waits for the mirror once all runs are over, in seconds.
PATIENCE = {"offline": 120.0, "online": 600.0}


class Mirror:
    """Sends finished runs to W&B from a separate process; a context manager that waits for it at the end."""

    def __init__(self, sweep: str, store: Store, tracking: Tracking, display: Display) -> None:
        self._sweep = sweep
        self._store = store
        self._tracking = tracking
        self._display = display
        self._log = store.jobs(sweep) / "wandb.log"
        self._sent: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def add(self, run: str) -> None:
        """Have the run `run` mirrored, unless it already is."""
        if self._tracking.mode == "disabled" or run in self._sent or is_mirrored(self._store, self._sweep, run):
            return
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        self._sent.add(run)
        with suppress(OSError):  # It died; the end of the launch says so.
            self._process.stdin.write(f"{run}\n".encode())
            self._process.stdin.flush()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "davinci", "sync", self._sweep, "--store", str(self._store.root), "--watch"]
        with self._log.open("ab") as output:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, process_group=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        again = f"python -m davinci sync {self._sweep} --store {shlex.quote(str(self._store.root))}"
        try:
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.close()
            status = self._process.wait(timeout=PATIENCE[self._tracking.mode])
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
            self._display.say(f"W&B did not finish in time and was stopped; later: {again}", "yellow")
            return
        if status:
            self._display.say(f"W&B mirroring failed (log: {self._log}); later: {again}", "yellow")
        else:
            self._display.say(
                f"W&B: {len(self._sent)} runs mirrored {self._tracking.mode} ({self._store.wandb})", "dim"
            )
