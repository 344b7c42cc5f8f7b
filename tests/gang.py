"""Processes that play the ranks of a job, with the environment torchrun would give them.

They live as long as the tests, since importing torch takes longer than training: each `Gang.run` is a new job for the
first few of them.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class Gang:
    """Up to `size` ranks."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ranks = []
        for _ in range(size):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._ranks.append((process, mine))

    def run(self, world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``work(*arguments)`` returned on each of `world` ranks; an exception is returned, not raised."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        for rank, (_, pipe) in enumerate(self._ranks[:world]):
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            shown = {name: str(value) for name, value in environment.items()} | {"MASTER_ADDR": "127.0.0.1"}
            pipe.send((shown, work, arguments))
        return [_answer(pipe) for _, pipe in self._ranks[:world]]

    def close(self) -> None:
        for process, pipe in self._ranks:
            pipe.close()
            process.kill()  # It waits for work: nothing is lost, and an interpreter takes seconds to take torch down.
            process.join()


def joined(work: Callable[..., Any], *arguments: Any) -> Any:
    """``work(ranks, *arguments)`` on every rank."""
    from davinci.training.distributed import join

    with join() as ranks:
        return work(ranks, *arguments)


def _answer(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError as gone:
        return gone


def _serve(pipe: Connection) -> None:
    from davinci.training import numerics

    numerics.configure(1)
    while True:
        try:
            environment, work, arguments = pipe.recv()
        except EOFError:
            return
        os.environ.update(environment)
        try:
            answer = work(*arguments)
        except Exception as error:
            answer = error
        for name in environment:
            os.environ.pop(name, None)
        pipe.send(answer)
