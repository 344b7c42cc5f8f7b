"""Mirroring a sweep to W&B for as long as it goes on: what is new is sent again and again, until an end that is told
(by the launcher, on this machine) or seen (on Slurm, or by whom it may concern)."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from davinci.launching.status import sweep_state
from davinci.launching.wrapper import STOPPED
from davinci.planning.plan import load_plan
from davinci.store import Store
from davinci.tracking.wandb_mirror import Mirror
from davinci.tracking.wandb_sending import SENT, UNREACHABLE, send

# Seconds between looks at the runs, and for how long W&B is left alone that does not answer, or not well.
PERIOD = 5.0
REST, LONGEST_REST = 20.0, 600.0
# Seconds between looks at the queue; for how long nobody must be seen at work for the sweep to be over, also where
# Slurm does not answer.
QUEUE_PERIOD = 30.0
IDLE, IDLE_UNANSWERED = 60.0, 3600.0
# How long a mirror that is to stop may take to say goodbye to W&B: nothing is lost where it does not.
STOP_SECONDS = 15.0


class End(Protocol):
    """When mirroring ends."""

    def wait(self, seconds: float) -> bool:
        """Wait so long, or for something new; whether the sweep is over, or the mirror is to stop."""

    @property
    def is_stopped(self) -> bool:
        """Whether the mirror is to stop though the sweep goes on."""


class Told:
    """Standard input has a line for something new, and ends when the sweep is over."""

    is_stopped = False

    def wait(self, seconds: float) -> bool:
        ready, _, _ = select.select([0], [], [], seconds)
        return bool(ready) and not os.read(0, 1 << 16)


class Seen:
    """The store and Slurm's queue show nobody at work any more. A signal stops the mirror before that."""

    def __init__(self, sweep: str, store: Store) -> None:
        self._plan = load_plan(store, sweep)
        self._store = store
        self._stop = threading.Event()
        self._looked = time.monotonic()
        self._idle_since: float | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._hear)

    @property
    def is_stopped(self) -> bool:
        return self._stop.is_set()

    def wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stop.wait(min(left, PERIOD)) or self._is_over():
                return True
        return self.is_stopped

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self._stop.is_set():
            self._stop.set()
            hard = threading.Timer(STOP_SECONDS, os._exit, [STOPPED])
            hard.daemon = True
            hard.start()

    def _is_over(self) -> bool:
        are_trained = all((self._store.node(node) / "done.json").is_file() for node in self._plan.nodes)
        if not are_trained and time.monotonic() < self._looked + QUEUE_PERIOD:
            return False
        self._looked = time.monotonic()
        state = sweep_state(self._plan, self._store)
        if state.is_settled:
            return True
        if state.is_worked_on:
            self._idle_since = None
            return False
        self._idle_since = self._idle_since or self._looked
        return self._looked - self._idle_since >= (IDLE_UNANSWERED if state.queued is None else IDLE)


def watch(mirror: Mirror, end: End, say: Callable[[str], None]) -> int:
    """Mirror everything of a sweep until its end.

    Args:
        mirror: of the sweep.
        end: of the sweep.
        say: told what goes wrong, a line each.

    Returns:
        What became of the last pass (see `send`), or `STOPPED`.

    Raises:
        UserError: W&B takes no run, as without an API key.
        Unreachable: it does not answer in the end.
    """
    rest, ended = 0.0, False
    while not ended:
        ended = end.wait(rest)
        began = time.monotonic()
        status = send(mirror, mirror.shown, say, lambda: end.is_stopped)
        took = time.monotonic() - began  # Half of the time, at most.
        rest = max(PERIOD, took) if status == SENT else min(LONGEST_REST, max(2 * rest, REST))
    if status != UNREACHABLE:
        mirror.close(goes_on=end.is_stopped)
    return STOPPED if end.is_stopped else status
