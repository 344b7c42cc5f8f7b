"""What is needed next is made while the present is worked on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

Made = TypeVar("Made")


class Prefetch(Generic[Made]):
    """``make(step)`` for each of `steps` in turn, made by one thread in the background, at most `ahead` of them early.

    One thread makes them in order, so that what comes out does not depend on timing and `make` needs no lock. What it
    raises is raised where its step is asked for. Leaving the context waits for the thread, which at most ends the item
    that it has begun.
    """

    def __init__(self, make: Callable[[int], Made], steps: Iterable[int], ahead: int = 2) -> None:
        self._make, self._steps, self._ahead = make, iter(steps), ahead
        self._coming: deque[tuple[int, Future[Made]]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self.waited = 0.0  # seconds that `take` has made its caller wait

    def __enter__(self) -> Self:
        self._order()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def take(self, step: int) -> Made:
        """What was made for `step`, the next of the steps.

        Raises:
            ValueError: another step is the next one, or none is left.
        """
        if not self._coming or self._coming[0][0] != step:
            expected = self._coming[0][0] if self._coming else "none"
            raise ValueError(f"asked for step {step}, but the next one is {expected}")
        started = time.perf_counter()
        _, coming = self._coming.popleft()
        try:
            made = coming.result()
        finally:
            # An error it holds leads to this frame: in a circle the caller and its connections would live on.
            del coming
        self.waited += time.perf_counter() - started
        self._order()
        return made

    def turn(self, make: Callable[[int], Made], steps: Iterable[int]) -> None:
        """Go on with ``make(step)`` for each of `steps` instead; what was made early is dropped."""
        for _, future in self._coming:
            future.cancel()
        self._coming.clear()
        self._make, self._steps = make, iter(steps)
        self._order()

    def _order(self) -> None:
        while len(self._coming) < self._ahead and (step := next(self._steps, None)) is not None:
            self._coming.append((step, self._thread.submit(self._make, step)))
