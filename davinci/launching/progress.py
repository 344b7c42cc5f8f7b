"""What the launcher shows: a live board on a terminal, a plain line every few seconds elsewhere.

Nothing here may stop a launch: when the terminal or pipe is gone, the display goes quiet and the work goes on.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from davinci.launching.board import Board

PLAIN_SECONDS = 10.0
LIVE_SECONDS = 0.5


class PatientConsole(Console):
    """A console whose broken pipe is an error like any other; rich's own would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Display:
    """Shows a `Board` on `console`; a context manager."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board = board
        self._console = console
        self._live = None
        if console.is_terminal:
            self._live = Live(
                console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
        self._due = 0.0
        self.period = LIVE_SECONDS if self._live else PLAIN_SECONDS

    def __enter__(self) -> Self:
        with self._harmless():
            if self._live:
                self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._harmless():
            if self._live:
                self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line that stays."""
        with self._harmless():
            self._console.print(Text(text, style=style), soft_wrap=True)

    def refresh(self) -> None:
        """Redraw, or print a plain line, if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + self.period
        with self._harmless():
            if self._live:
                self._live.update(self._picture(), refresh=True)
            else:
                self._console.print(Text(self._board.line()), soft_wrap=True)

    def _picture(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for number, seat in sorted(self._board.seats.items()):
            if not seat.node:
                table.add_row(f"worker {number + 1}", "", "", Text(seat.phase, style="dim"))
                continue
            fraction = self._board.fraction(seat.node)
            table.add_row(
                f"worker {number + 1}",
                ProgressBar(total=1.0, completed=fraction, width=20),
                f"{100 * fraction:3.0f}%",
                Text(f"{seat.phase} {self._board.name(seat.node)}"),
            )
        done, total = self._board.tokens
        table.add_row("all", ProgressBar(total=total, completed=done, width=20), f"{100 * done / total:3.0f}%", "")
        return Group(table, Text(self._board.line(), overflow="ellipsis", no_wrap=True))

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Survive a display that fails: nobody is watching any more, so send what is left nowhere."""
        try:
            yield
        except (OSError, ValueError):
            self._live = None
            _quiet_output()
            self._console = Console(file=io.StringIO())


def _quiet_output() -> None:
    """Point standard output at nothing, so that neither a later print nor the flush at exit can fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
