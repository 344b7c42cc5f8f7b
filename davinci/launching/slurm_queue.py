"""What Slurm says of a sweep's jobs, and asking it to cancel some. No submitit: commands that only look start fast."""

from __future__ import annotations

import subprocess
from collections.abc import Collection

from davinci.errors import UserError
from davinci.launching.lock import Lock
from davinci.launching.queued import book_path, read_book
from davinci.store import Store, write_json

# Slurm answers in well under a second unless something is wrong with it.
PATIENCE_SECONDS = 20.0


def queue(jobs: Collection[str]) -> dict[str, str]:
    """Those of `jobs` that are queued or running, with their state: ``PENDING (Resources)``.

    Raises:
        UserError: squeue is not here or fails.
    """
    if not jobs:
        return {}
    listed = _run("squeue", "--noheader", "--me", "--array", "--format=%i|%T|%r")
    wanted = set(jobs)
    found = {}
    for line in listed.splitlines():
        job, state, why = [*line.split("|"), "", ""][:3]
        if job in wanted:
            found[job] = state if why in ("", "None") else f"{state} ({why})"
    return found


def cancel_jobs(sweep: str, chains: Collection[str], store: Store) -> tuple[str, ...]:
    """Cancel the live jobs of `chains` and take them out of the launcher's book; returns their ids.

    What is launched again is then submitted at once, instead of being taken for a job that Slurm does not list yet.

    Raises:
        UserError: Slurm cannot be asked.
    """
    if read_book(store, sweep).keys().isdisjoint(chains):
        return ()
    with Lock(store.jobs(sweep) / "submitting"):
        book = read_book(store, sweep)
        live = tuple(queue([book[chain] for chain in chains if chain in book]))
        if live:
            _run("scancel", *live)
        write_json(book_path(store, sweep), {chain: job for chain, job in book.items() if chain not in chains})
    return live


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not found; Slurm's commands must be on this machine's PATH") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: Slurm did not answer within {PATIENCE_SECONDS:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"{command[0]}: {said[0]}")
    return done.stdout
