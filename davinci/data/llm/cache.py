"""Answers of models, kept by what was asked: asked again, they cost nothing.

CACHE/llm/<series>/<worker>.jsonl, a line an answer. A series is a model with its prompt and parameters. Every worker
appends to a file of its own and reads everyone's, so that no lock is needed, on NFS neither; a line cut short by a
crash is no answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

from davinci.errors import UserError


def key_of(request: Any) -> str:
    """What names a request: SHA-256 of its canonical JSON."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class AnswerCache:
    """The answers of one series. Memory holds where each answer stands (a few hundred bytes), not the answers.

    Threads may share one. What other workers add after it was opened is not seen.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._lock = threading.Lock()
        self._own: Path | None = None
        for path in sorted(folder.glob("*.jsonl")):
            self._index(path)

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer to a request, or None."""
        with self._lock:
            place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        with place[0].open("rb") as file:
            file.seek(place[1])
            return dict(json.loads(file.readline())["answer"])

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer; it is on its way to the disk when this returns."""
        line = json.dumps({"key": key, "answer": answer}, ensure_ascii=False).encode(errors="replace") + b"\n"
        with self._lock:
            try:
                if self._own is None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._own = self._folder / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
                with self._own.open("ab") as file:
                    place = file.tell()
                    file.write(line)
            except OSError as error:
                raise UserError(f"{self._folder}: an answer cannot be kept ({error.strerror})") from None
            self._places[bytes.fromhex(key)] = (self._own, place)

    def _index(self, path: Path) -> None:
        place = 0
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    with contextlib.suppress(ValueError, KeyError, TypeError):  # written over: it is asked again
                        self._places[bytes.fromhex(json.loads(line)["key"])] = (path, place)
                place += len(line)
