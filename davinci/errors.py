"""The one exception a user's mistake raises: a message, no traceback; and the one that is nobody's fault."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a config, a file or a command line.

    The message says what was wrong, where (``file:key``), what is accepted and the nearest name. Entry points print it
    on one line and exit with status 2; nothing below them catches it.
    """


class RankLost(Exception):
    """Another rank of the job ended without a word (killed, or with its node): trying again may help."""


def refused(error: OSError) -> str:
    """What the system refused, on one line: which path, and why."""
    path = error.filename2 or error.filename
    why = error.strerror or str(error)
    return f"{path}: cannot be read or written ({why})" if path else why


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; nearest: a, b"`` for names close to `name`, else ``"; known: …"`` (at most eight)."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"; nearest: {', '.join(close)}"
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"; known: {shown or 'none'}"
