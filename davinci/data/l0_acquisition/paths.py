"""Files that a reader is given: found by pattern, cut into parts."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davinci.errors import UserError

_PARTS = 1024  # about so many parts at most are made of whole files


@dataclass(frozen=True)
class Found:
    """A file; `name` is what documents of it are named after, the same wherever the pool's folder lies."""

    name: str
    path: Path

    def stated(self) -> dict[str, Any]:
        """What decides its content, as far as one knows without reading it."""
        status = self.path.stat()
        return {"name": self.name, "path": str(self.path), "bytes": status.st_size, "modified": status.st_mtime_ns}


def find(patterns: Sequence[str], root: Path) -> list[Found]:
    """The files that match any of `patterns` (``*``, ``?``, ``[…]``, ``**``), in order of name.

    A file is named by its path from `root`; one of an absolute pattern by its path from the pattern's last folder
    without a wildcard.

    Raises:
        UserError: a pattern that matches no file, or two files of one name.
    """
    found: dict[str, Found] = {}
    for pattern in patterns:
        whole = Path(pattern).expanduser()
        base = root
        if whole.is_absolute():
            fixed = [part for part in whole.parts if not glob.has_magic(part)]
            base = Path(*fixed[: next((at for at, part in enumerate(whole.parts) if glob.has_magic(part)), -1)])
        paths = [Path(one) for one in glob.iglob(str(root / whole), recursive=True)]  # noqa: PTH207  patterns may be absolute
        files = [path for path in paths if path.is_file()]
        if not files:
            raise UserError(f"paths: {pattern} matches no file (in {root})")
        for path in files:
            name = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
            known = found.setdefault(name, Found(name, path))
            if known.path.resolve() != path.resolve():
                raise UserError(
                    f"paths: {known.path} and {path} would both be named {name}; give one folder above both"
                )
    return [found[name] for name in sorted(found)]


def grouped(files: Iterable[Found], part_bytes: int) -> list[dict[str, Any]]:
    """Parts of whole files: one each, or neighbours together where there are very many.

    A part ends at files chosen by the hash of their name, so that a file more or less changes one part and not all
    after it.
    """
    listed = [one.stated() for one in files]
    every = 1 << (max(0, len(listed) - 1) // _PARTS).bit_length()
    parts: list[dict[str, Any]] = []
    size = 0
    for one in listed:
        begins = (
            int.from_bytes(hashlib.sha256(one["name"].encode(errors="surrogateescape")).digest()[:4], "big") % every
            == 0
        )
        if not parts or begins or size + one["bytes"] > part_bytes:
            parts.append({"files": [], "bytes": 0})
            size = 0
        parts[-1]["files"].append(one)
        parts[-1]["bytes"] += one["bytes"]
        size += one["bytes"]
    return parts


def files_of(parts: Iterable[dict[str, Any]], shown: int = 100) -> dict[str, Any]:
    """What a card says of the files that parts are of: all of their number and size, the names of the first."""
    files = {one["name"]: one["bytes"] for part in parts for one in part["files"]}
    return {"files": dict(list(files.items())[:shown]), "files_in_all": len(files), "bytes": sum(files.values())}
