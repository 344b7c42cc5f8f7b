"""How often a chain's job died: ``jobs/<sweep>/<chain>.attempts.json``.

A job notes that it began and that it ended, or was asked to. One that finds its predecessor's beginning without an end
knows that it died with its node.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from davinci.config import Frozen, NotNegative, parse
from davinci.errors import UserError
from davinci.store import Store, read_json, write_json


class Attempts(Frozen):
    """`count` deaths so far, the last one's `reason`, and whether a job is at work (`open`)."""

    count: NotNegative = 0
    reason: str | None = None
    open: bool = False


def attempts_path(store: Store, sweep: str, chain: str) -> Path:
    return store.jobs(sweep) / f"{chain}.attempts.json"


def read_attempts(path: Path) -> Attempts:
    try:
        return parse(Attempts, read_json(path), lambda key: str(path))
    except (OSError, UserError):
        return Attempts()


def begin(path: Path, excused: Callable[[], bool] = lambda: False) -> Attempts:
    """Note that a job begins; a predecessor that never ended counts as a death, unless `excused` knows better."""
    found = read_attempts(path)
    if found.open and not excused():
        found = Attempts(count=found.count + 1, reason="its node failed, or it was killed with its batch script")
    _write(path, found.model_copy(update={"open": True}))
    return found


def end(path: Path) -> None:
    """Note that the job ends in good order, or is about to."""
    found = read_attempts(path)
    if found.open:
        _write(path, found.model_copy(update={"open": False}))


def died(path: Path, reason: str) -> Attempts:
    """Count a death."""
    found = Attempts(count=read_attempts(path).count + 1, reason=reason)
    _write(path, found)
    return found


def _write(path: Path, attempts: Attempts) -> None:
    with suppress(OSError):  # A full disk: what counts is the work.
        write_json(path, attempts.model_dump())
