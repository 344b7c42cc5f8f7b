"""Lists, counts and tokens as a plan's sentences put them."""

from __future__ import annotations

from collections.abc import Sequence


def some(names: Sequence[str], most: int = 4, columns: int | None = None) -> str:
    """``a, b and 7 more``: at most `most` names, fewer where they would take over `columns` characters; always one."""
    shown = list(names[:most])
    while columns is not None and len(shown) > 1 and len(", ".join(shown)) > columns:
        shown.pop()
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def count(number: int, noun: str) -> str:
    """``1 arm``, ``2 arms``."""
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


def tokens(number: float) -> str:
    """Three significant digits and a unit: ``419B``, ``7.00T``; whole below a thousand."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        value = number / size
        if value >= 0.9995:
            return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return f"{number:.0f}"
