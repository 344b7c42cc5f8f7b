"""The table every benchmark ends with, and its exit status."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import NoReturn

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure beside its peer, in the same unit; `ratio` is how many times better ours is, at least `target`."""

    what: str
    ours: str
    peer: str
    ratio: float
    target: float


def finish(title: str, rows: list[Row], peer: str = "peer") -> NoReturn:
    """Print the table, the peer's column headed `peer`; exits with 1 where a target is missed."""
    table = Table("figure", "daVinci", peer, "ratio", "target", title=title, title_justify="left")
    for row in rows:
        colour = "green" if row.ratio >= row.target else "red"
        table.add_row(row.what, row.ours, row.peer, f"[{colour}]{row.ratio:.2f}x[/]", f"{row.target:g}x")
    Console(width=110).print(table)
    sys.exit(any(row.ratio < row.target for row in rows))
