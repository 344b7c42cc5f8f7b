"""Marks that a chain was cancelled: how a command reaches a job wherever it runs, through the store they share.

``jobs/<sweep>/<chain>.cancelled.json`` says who did it. A job that finds the mark, before it starts or while it runs,
checkpoints and fails with that reason; launching the chain again removes the mark.
"""

from __future__ import annotations

import getpass
import platform
import time
from pathlib import Path

from davinci.errors import UserError
from davinci.store import Store, read_json, write_json

# How often a running job looks for the mark: once a step would be a file system call too many.
LOOK_SECONDS = 1.0


class Cancelled(UserError):
    """The job's chain was cancelled; the message says by whom."""


def mark_path(store: Store, sweep: str, chain: str) -> Path:
    return store.jobs(sweep) / f"{chain}.cancelled.json"


def mark(store: Store, sweep: str, chain: str) -> None:
    """Ask the chain's job, present or future, to stop."""
    write_json(mark_path(store, sweep, chain), {"reason": f"cancelled by {getpass.getuser()} on {platform.node()}"})


def reason(store: Store, sweep: str, chain: str) -> str | None:
    """Who cancelled the chain, in words; None where nobody did."""
    try:
        found = read_json(mark_path(store, sweep, chain))
    except FileNotFoundError:
        return None
    except UserError:
        return "cancelled"  # Torn by a power cut, but it was meant.
    return str(found.get("reason", "cancelled")) if isinstance(found, dict) else "cancelled"


class Watch:
    """Tells whether the chain is cancelled; looks at the store at most every `LOOK_SECONDS`."""

    def __init__(self, store: Store, sweep: str, chain: str) -> None:
        self._store, self._sweep, self._chain = store, sweep, chain
        self._path = mark_path(store, sweep, chain)
        self._next = 0.0
        self._found = False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._found and now >= self._next:
            self._next = now + LOOK_SECONDS
            self._found = self._path.is_file()
        return self._found

    def check(self) -> None:
        """Look now; raises Cancelled, which says who did it, if anybody cancelled the chain."""
        found = reason(self._store, self._sweep, self._chain)
        if found is not None:
            raise Cancelled(found)
