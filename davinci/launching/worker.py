"""A persistent worker process: ``python -m davinci.launching.worker FD``.

It takes commands from the socket FD, one JSON object a line, and answers with events the same way:

- ``{"run": PATH}`` runs a job; events of `job.run_job`, then ``{"event": "outcome", …}``.
- ``{"stop": true}`` asks the running job, and any later one, to stop at its next step.

It never outlives the launcher: the end of the socket ends it at once, in whatever it is doing, and so does the death of
the launcher's thread where the kernel can tell (everything on disk is atomic, so nothing is lost but time).
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from davinci.launching.job import perform

_PR_SET_PDEATHSIG = 1


def main() -> None:
    # Ctrl-C reaches the whole terminal; the launcher decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    channel = socket.socket(fileno=int(sys.argv[1]))
    stop = threading.Event()
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, stop, commands), name="commands", daemon=True).start()

    def report(event: dict[str, Any]) -> None:
        channel.sendall((json.dumps(event) + "\n").encode())

    while True:
        outcome = perform(Path(commands.get()), report, stop.is_set)
        report({"event": "outcome", **outcome.model_dump()})


def _listen(channel: socket.socket, stop: threading.Event, commands: queue.SimpleQueue[str]) -> None:
    """Read commands until the launcher closes its end or dies, which ends the process."""
    try:
        with channel.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                command = json.loads(line)
                if "run" in command:
                    commands.put(command["run"])
                if command.get("stop"):
                    stop.set()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
