"""What the mirror of a sweep to W&B says, on this machine or on Slurm."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from davinci.store import Store

ERROR = "error: "


def log_path(store: Store, sweep: str) -> Path:
    return store.jobs(sweep) / "wandb.log"


def last_error(store: Store, sweep: str) -> str | None:
    """What went wrong, if that is the last that was said."""
    with suppress(OSError), log_path(store, sweep).open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 8192))
        lines = file.read().decode(errors="replace").splitlines()
        if lines and lines[-1].startswith(ERROR):
            return lines[-1].removeprefix(ERROR)
    return None
