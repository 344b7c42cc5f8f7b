"""How commands print."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davinci.store import Store

if TYPE_CHECKING:
    from rich.console import Console

# Where nobody reads it on a screen, nothing is cut off or wrapped.
PIPE_COLUMNS = 10_000


def print_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """Print `value` as one line of JSON, at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def make_console() -> Console:
    """A console that is as wide as the terminal, or wide enough for anything where there is none."""
    from davinci.launching.progress import PatientConsole

    console = PatientConsole()
    return console if console.is_terminal else PatientConsole(width=PIPE_COLUMNS)


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Lines of a name and a value, the values below each other."""
    width = max((len(name) for name, _ in rows), default=0) + 2
    return "\n".join(f"{name.ljust(width)}{value}" for name, value in rows)


def command(store: Store, *words: str) -> str:
    """A command on `store` as it would be typed here."""
    where = [] if store.root == Path("store").absolute() else ["--store", str(store.root)]
    return shlex.join(["python", "-m", "davinci", *words, *where])
