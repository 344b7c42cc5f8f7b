"""Work on several items at a time, in the order of the items."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # items a thread that are read before the first's result is given


def together(
    items: Iterable[Item], size: Callable[[Item], int], enough: int, most: int = sys.maxsize
) -> Iterator[list[Item]]:
    """Neighbours in lists, each of which ends where its items' sizes come to `enough`, or with the `most`-th item."""
    some: list[Item] = []
    total = 0
    for item in items:
        some.append(item)
        total += size(item)
        if total >= enough or len(some) >= most:
            yield some
            some, total = [], 0
    if some:
        yield some


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[tuple[Item, Result], None, None]:
    """Each item with what `function` gives of it, computed by `threads` threads; memory holds a few items a thread.

    An exception of `function` is raised at its item's place; what has not begun by then does not.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) >= _AHEAD * threads:
                first, result = waiting.popleft()
                yield first, result.result()
        while waiting:
            first, result = waiting.popleft()
            yield first, result.result()
    finally:
        pool.shutdown(cancel_futures=True)
