"""At most so many jobs of a sweep at a time, counted by leases in the store, whatever queues they came from."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from davinci.launching.lock import Lock, WaitAbandoned

POLL_SECONDS = 1.0


class Slot:
    """Context manager that holds one of `count` places; each is a `Lock` in ``<folder>/<number>/``, which a dead
    holder loses.

    Args:
        folder: shared by all who count together.
        count: places.
        on_wait: called once when all are taken.
        should_stop: polled while waiting; when true, `WaitAbandoned` is raised.
    """

    def __init__(self, folder: Path, count: int, on_wait: Callable[[], None], should_stop: Callable[[], bool]) -> None:
        self._locks = [Lock(folder / str(number)) for number in range(count)]
        self._on_wait = on_wait
        self._should_stop = should_stop
        self._mine: Lock | None = None

    def __enter__(self) -> Self:
        told = False
        while True:
            self._mine = next((lock for lock in self._locks if lock.try_take()), None)
            if self._mine is not None:
                return self
            if not told:
                self._on_wait()
                told = True
            if self._should_stop():
                raise WaitAbandoned("stopped waiting for a place among the sweep's jobs")
            time.sleep(POLL_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mine is not None:
            self._mine.release()
            self._mine = None
