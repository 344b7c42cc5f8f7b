"""``sync``: send finished runs to W&B."""

from __future__ import annotations

import argparse
import os
import select
import sys
import traceback
from collections.abc import Iterable

from davinci.errors import UserError
from davinci.launching.lock import Lock
from davinci.store import Store
from davinci.tracking.wandb_mirror import Mirror, Mode
from davinci.tracking.wandb_session import Refused, Unreachable

# How often runs are looked at while they train, and how long W&B is left alone when it does not answer, in seconds.
PERIOD = 20.0
LONGEST_REST = 600.0


def run(options: argparse.Namespace, store: Store) -> int:
    mode: Mode | None = None if options.watch else "offline" if options.offline else "online"
    mirror = Mirror(store, options.sweep, mode, lambda line: print(line, flush=True))
    finished = [name for name in mirror.shown if mirror.is_finished(name)]
    new = [name for name in finished if not mirror.is_mirrored(name)]
    if not (new or options.watch):
        return _say_done(mirror, finished, options)
    place = store.wandb / "locks" / "-".join([options.sweep, *sorted(mirror.modes)])
    if options.watch:
        os.nice(10)  # Training comes first.
    with Lock(place, on_wait=lambda owner: print(f"waiting for {owner}, which sends them too", flush=True)):
        status = _watch(mirror) if options.watch else _send(mirror, new)
    return status or _say_done(mirror, finished, options)


def _say_done(mirror: Mirror, finished: Iterable[str], options: argparse.Namespace) -> int:
    runs = [name for name, one in mirror.shown.items() if one.job_type == "run"]
    done = [name for name in finished if name in runs]
    print(f"{len(done)} of {len(runs)} runs are finished and mirrored{' offline' if options.offline else ''}")
    return 0


def _send(mirror: Mirror, names: Iterable[str]) -> int:
    """Send `names`; 1 if W&B refused some of them, 2 if it stopped answering."""
    status = 0
    for name in names:
        try:
            mirror.send(name)
        except Refused as error:
            status = 1
            print(f"error: {name}: {error}", file=sys.stderr, flush=True)
            mirror.abandon()
        except Unreachable as error:
            print(f"error: {error}; nothing is lost, and the same command goes on", file=sys.stderr, flush=True)
            mirror.abandon()
            return 2
    return status


def _watch(mirror: Mirror) -> int:
    """Mirror everything while it trains, until standard input ends; a line there says that there is something new.

    Returns the status of the last pass.
    """
    rest, ended = 0.0, False
    while not ended:
        ended = _wait(rest)
        status = _pass(mirror)
        rest = PERIOD if status == 0 else min(LONGEST_REST, max(2 * rest, PERIOD))
    if status != 2:
        mirror.close()
    return status


def _pass(mirror: Mirror) -> int:
    """Send whatever is new of any run: 0 if that went well, 1 if some failed, 2 if W&B does not answer."""
    status = 0
    for name in mirror.shown:
        try:
            mirror.send(name)
        except Unreachable as error:
            print(f"{name}: {error}", flush=True)
            mirror.abandon()
            return 2
        except Refused as error:
            status = 1
            print(f"{name}: {error}", flush=True)
            mirror.abandon()
        except UserError:
            raise
        except Exception:  # Whatever the client comes up with: other runs may go through, and this one another time.
            status = 1
            traceback.print_exc()
            mirror.abandon()
    return status


def _wait(seconds: float) -> bool:
    """Wait for `seconds` or for a line on standard input; whether that has ended."""
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and not os.read(0, 1 << 16)
