"""Lists and counts as a plan's sentences put them."""

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
