"""Worker processes of a build, which end when it does, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from davinci.errors import UserError

Result = TypeVar("Result")


class Workers:
    """Calls functions in `count` processes, or in this one where that is 1."""

    def __init__(self, count: int, executor: ProcessPoolExecutor | None) -> None:
        self.count = count
        self._executor = executor

    def map(
        self, call: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], done: Callable[[], None] = lambda: None
    ) -> list[Result]:
        """``call(*task)`` of each task, in their order; `done` is called as each ends.

        Raises:
            UserError: a worker was killed.
        """
        if self._executor is None:
            results = []
            for task in tasks:
                results.append(call(*task))
                done()
            return results
        futures: list[Future[Result]] = [self._executor.submit(call, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
                done()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, perhaps for its memory; what is done is kept: the same command goes on "
                f"(--workers less than {self.count} takes less memory)"
            ) from None
        finally:
            for future in futures:
                future.cancel()
        return [future.result() for future in futures]


@contextmanager
def workers(count: int) -> Iterator[Workers]:
    """`count` processes, not forked: threads may be running in this one."""
    if count == 1:
        yield Workers(1, None)
        return
    executor = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=begin)
    try:
        yield Workers(count, executor)
    finally:
        executor.shutdown(cancel_futures=True)


def begin() -> None:
    """In a worker: one thread for tokenizers, since there is a process a core; and an end with the parent's end."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
