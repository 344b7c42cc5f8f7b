"""What a build says while it works: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

Log = Callable[[str], None]
_EVERY = 30.0  # seconds between lines of what takes long
_SHORTEST, _NUMBERS = 16, 44  # columns of a title, and of what stands behind it: a bar, counts and times


class Report:
    """Lines for `log`, and a bar while something is done often."""

    def __init__(self, log: Log, is_terminal: bool | None = None) -> None:
        self.line = log
        self._start = time.monotonic()
        self._console = Console() if (sys.stdout.isatty() if is_terminal is None else is_terminal) else None

    @property
    def since(self) -> str:
        """Seconds since the build began."""
        return f"{time.monotonic() - self._start:.1f} s"

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Yields what to call as each of `total` things is done."""
        if self._console is None:
            yield self._lines(title, total)
            self.line(f"{title}: {total} done ({self.since})")
            return
        title_column = Column(no_wrap=True, max_width=max(_SHORTEST, self._console.width - _NUMBERS))
        columns = (TextColumn("{task.description}", table_column=title_column), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console) as progress:
            task = progress.add_task(title, total=total)
            yield lambda: progress.advance(task)

    def _lines(self, title: str, total: int) -> Callable[[], None]:
        """Says now and then how far it is."""
        done, said = 0, time.monotonic()

        def count() -> None:
            nonlocal done, said
            done += 1
            if done < total and time.monotonic() - said >= _EVERY:
                said = time.monotonic()
                self.line(f"{title}: {done} of {total} ({self.since})")

        return count
