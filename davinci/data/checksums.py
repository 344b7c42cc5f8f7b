"""Whether a variant's files are what was written: their SHA-256 stand beside its card."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from davinci.errors import UserError
from davinci.store import file_digest, read_json

RECORD = "variant.json"
SOON = 1 << 26  # bytes of a variant: every job that trains reads as much of each of its sources before it begins


def recorded(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a variant, by its name; none where its record is missing or has none."""
    try:
        return dict(read_json(folder / RECORD)["files"])
    except (OSError, UserError, KeyError, TypeError, ValueError):
        return {}


def wrong(path: Path, digest: str) -> Iterator[str]:
    """What is wrong with a file that had this SHA-256: a line, or nothing."""
    if not path.is_file():
        yield f"{path}: missing"
    elif (found := file_digest(path)) != digest:
        yield f"{path}: SHA-256 {found[:12]} where {digest[:12]} was written; its {path.stat().st_size:,} bytes changed"


def changed(folder: Path, files: Collection[str] | None = None) -> Iterator[str]:
    """What is wrong with those of a variant's files, or with all, a line each; of more than `SOON` together only
    ``data verify`` knows."""
    known = {folder / file: digest for file, digest in recorded(folder).items() if files is None or file in files}
    if sum(path.stat().st_size for path in known if path.is_file()) <= SOON:
        for path, digest in known.items():
            yield from wrong(path, digest)
