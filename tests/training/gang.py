"""Processes that play the ranks of a job, with the environment torchrun would give them.

They live as long as the tests, since importing torch takes longer than training: each `Gang.run` makes a new group of
the first few of them.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from davinci.config import Node
from davinci.errors import UserError
from davinci.store import Store


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
        """What ``work(ranks, *arguments)`` returned on each of `world` ranks; an exception is returned, not raised."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        for rank, (_, pipe) in enumerate(self._ranks[:world]):
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            shown = {name: str(value) for name, value in environment.items()} | {"MASTER_ADDR": "127.0.0.1"}
            pipe.send((shown, work, arguments))
        return [pipe.recv() for _, pipe in self._ranks[:world]]

    def close(self) -> None:
        for process, pipe in self._ranks:
            pipe.close()
            process.kill()  # It waits for work: nothing is lost, and an interpreter takes seconds to take torch down.
            process.join()


def _serve(pipe: Connection) -> None:
    from davinci.training import numerics
    from davinci.training.distributed import join

    numerics.configure(1)
    while True:
        try:
            environment, work, arguments = pipe.recv()
        except EOFError:
            return
        try:
            with join(environment) as ranks:
                answer = work(ranks, *arguments)
        except Exception as error:
            answer = error
        for name in environment:
            os.environ.pop(name, None)
        pipe.send(answer)


class Trained:
    """What a rank saw of a training: digests of the rows it read in each step, and how it ended."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.progress: list[tuple[int, float, float]] = []
        self.error: tuple[str, str] | None = None


def train(ranks: Any, node: Node, root: Path, attempt: int, stop: tuple[int, int] | None) -> Trained:
    """Train on this rank; `stop` is the rank that asks to stop, and after how many steps."""
    from davinci.training import loop

    seen, asked = Trained(), 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return (ranks.rank, asked) == stop

    def watched(objective: Any, batch: Any, *rest: Any) -> Any:
        seen.rows.append([hashlib.sha256(row.tobytes()).hexdigest() for row in batch.tokens])
        return plain(objective, batch, *rest)

    plain, loop.gradients = loop.gradients, watched
    try:
        loop.train(
            node,
            Store(root),
            checkpoints=(),
            attempt=attempt,
            progress=lambda *values: seen.progress.append(values),
            should_stop=should_stop,
            heldout_sequences=4,
            ranks=ranks,
        )
    except (loop.Stopped, UserError) as error:  # on every rank alike
        seen.error = type(error).__name__, str(error)
    finally:
        loop.gradients = plain
    return seen
