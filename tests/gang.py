"""Processes that play the ranks of a job, with the environment torchrun would give them.

They live as long as the tests, since importing torch takes longer than training: each `Gang.run` is a new job for the
first few of them.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

PATIENCE = 300  # seconds that a rank may work: ranks that wait for each other would wait for ever
# Below those that connections get by themselves, and of each worker of the tests its own.
_PORTS = itertools.count(12_000 + 2_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))


class Gang:
    """Up to `size` ranks."""

    def __init__(self, size: int) -> None:
        self._ranks = [_started() for _ in range(size)]

    def run(self, world: int, work: Callable[..., Any], *arguments: Any, ends: bool = False) -> list[Any]:
        """What ``work(*arguments)`` returned on each of `world` ranks; an exception is returned, not raised.

        Where it `ends` each rank's process ends with its answer, as a job's does: a process group that something still
        holds would keep its connections, and another rank's wait for ever for what it had begun.
        """
        port = next(port for port in _PORTS if _is_free(port))
        for rank, (_, pipe) in enumerate(self._ranks[:world]):
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            shown = {name: str(value) for name, value in environment.items()} | {"MASTER_ADDR": "127.0.0.1"}
            pipe.send((shown, work, arguments))
        found: dict[int, Any] = {}
        while len(found) < world:
            found |= self._answers([rank for rank in range(world) if rank not in found], ends)
        if ends:
            self._ranks[:world] = [_started() for _ in range(world)]
        return [found[rank] for rank in range(world)]

    def _answers(self, ranks: list[int], ends: bool) -> dict[int, Any]:
        """Of those of `ranks` that answer first."""
        waiting = {self._ranks[rank][1]: rank for rank in ranks}
        ready = wait(list(waiting), PATIENCE)
        if not ready:
            for process, _ in self._ranks:  # none is of use to the tests that follow, which fail at once
                process.kill()
            raise TimeoutError(f"ranks {ranks} have worked for {PATIENCE} s")
        found: dict[int, Any] = {}
        for pipe in ready:
            rank = waiting[pipe]
            try:
                found[rank] = pickle.loads(pipe.recv_bytes())
            except EOFError as gone:
                found[rank] = gone
            if ends:
                self._ranks[rank][0].kill()
        return found

    def close(self) -> None:
        for process, pipe in self._ranks:
            pipe.close()
            process.kill()  # It waits for work: nothing is lost, and an interpreter takes seconds to take torch down.
            process.join()


def _started() -> tuple[Any, Connection]:
    """A process that waits for work, and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, mine


def joined(work: Callable[..., Any], *arguments: Any) -> Any:
    """``work(ranks, *arguments)`` on every rank."""
    from davinci.training.distributed import join

    with join() as ranks:
        return work(ranks, *arguments)


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


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
        gc.collect()  # Connections close with what holds them; a job's process would end here.
        pipe.send_bytes(pickle.dumps(answer))  # `send` would share a tensor's memory, which ends with this process
