"""Who is launching a sweep: ``jobs/<sweep>/launcher-<token>.json`` for as long as a local launcher works on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from davinci.launching.lock import Owner, process_start, this_process
from davinci.store import Store, write_json


@contextmanager
def present(store: Store, sweep: str) -> Iterator[None]:
    """Be known as a launcher of `sweep`; what launchers that died on this machine left behind goes."""
    me = this_process()
    for path, owner in _files(store, sweep):
        if owner is None or _is_dead(owner, me):
            path.unlink(missing_ok=True)
    mine = store.jobs(sweep) / f"launcher-{me.token[:8]}.json"
    write_json(mine, asdict(me))
    try:
        yield
    finally:
        mine.unlink(missing_ok=True)


def launchers(store: Store, sweep: str) -> list[Owner]:
    """Local launchers working on `sweep`; one on another machine counts as alive, since nothing tells from here."""
    me = this_process()
    return [owner for _, owner in _files(store, sweep) if owner is not None and not _is_dead(owner, me)]


def is_here(owner: Owner) -> bool:
    """Whether `owner` is a process that a signal from this one reaches."""
    return owner.machine == this_process().machine


def _is_dead(owner: Owner, me: Owner) -> bool:
    return owner.machine == me.machine and process_start(owner.pid) != owner.started


def _files(store: Store, sweep: str) -> list[tuple[Path, Owner | None]]:
    found: list[tuple[Path, Owner | None]] = []
    for path in sorted(store.jobs(sweep).glob("launcher-*.json")):
        try:
            found.append((path, Owner(**json.loads(path.read_text()))))
        except (OSError, ValueError, TypeError):
            found.append((path, None))
    return found
