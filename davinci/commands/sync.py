"""``sync``: send runs to W&B, once or for as long as the sweep goes on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from davinci.errors import UserError
from davinci.launching.lock import Lock, WaitAbandoned
from davinci.launching.mirror_log import ERROR
from davinci.store import Store
from davinci.tracking.wandb_mirror import Mirror, Mode
from davinci.tracking.wandb_sending import send


def run(options: argparse.Namespace, store: Store) -> int:
    try:
        return _run(options, store)
    except BrokenPipeError:
        raise
    except OSError as error:  # A full disk, or a folder that may not be written.
        raise UserError(f"W&B's files cannot be kept in {store.wandb}: {error}") from None


def _run(options: argparse.Namespace, store: Store) -> int:
    is_watching = options.watch or options.told
    mode: Mode | None = None if is_watching else "offline" if options.offline else "online"
    mirror = Mirror(store, options.sweep, mode, lambda line: print(line, flush=True))
    if is_watching:
        return _watch(mirror, options, store) or _say_done(mirror, options)
    new = [name for name in mirror.shown if mirror.is_finished(name) and not mirror.is_mirrored(name)]
    if new:
        with _lock(mirror, options, store):
            if status := send(mirror, new, _say):
                return status
    return _say_done(mirror, options)


def _watch(mirror: Mirror, options: argparse.Namespace, store: Store) -> int:
    # They load pydantic, which one that finds nothing to send does not need.
    from davinci.launching.mirror_watch import Seen, Told, watch
    from davinci.launching.wrapper import STOPPED

    os.nice(10)  # Training comes first.
    end = Told() if options.told else Seen(options.sweep, store)
    try:
        with _lock(mirror, options, store, lambda: end.is_stopped):
            return watch(mirror, end, _say)
    except WaitAbandoned:
        return STOPPED


def _lock(
    mirror: Mirror, options: argparse.Namespace, store: Store, should_stop: Callable[[], bool] = lambda: False
) -> Lock:
    place = store.wandb / "locks" / "-".join([options.sweep, *sorted(mirror.modes)])
    return Lock(
        place, lambda owner: print(f"waiting for {owner}, which sends them too", flush=True), should_stop=should_stop
    )


def _say(line: str) -> None:
    print(f"{ERROR}{line}", file=sys.stderr, flush=True)


def _say_done(mirror: Mirror, options: argparse.Namespace) -> int:
    runs = [name for name, one in mirror.shown.items() if one.job_type == "run"]
    done = [name for name in runs if mirror.is_finished(name)]
    print(f"{len(done)} of {len(runs)} runs are finished and mirrored{' offline' if options.offline else ''}")
    return 0
