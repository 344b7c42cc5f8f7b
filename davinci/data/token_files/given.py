"""What every format of tokens comes to: files to read in place, or documents to convert."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from davinci.config import Frozen
from davinci.data.cards import Extent, TokenizerCard, TokenType
from davinci.errors import UserError

Array = npt.NDArray[Any]
CHUNK = 1 << 22  # tokens looked at at once


@dataclass(frozen=True)
class InPlace:
    """Tokens that are read where they lie.

    `extents` are all of them in order, each to the end of its file. `ends` int64[documents] are where the documents
    end, in tokens from the first; None where only the ends of text in between say so.
    """

    extents: tuple[Extent, ...]
    dtype: TokenType
    ends: Array | None = None


@dataclass(frozen=True)
class Documents:
    """Tokens that are copied: `read` gives each of `count` documents, int[n], at every call; an end of text is added to
    those without."""

    count: int
    read: Callable[[], Iterator[Array]]


class TokenFiles(Frozen, ABC):
    """Tokens in some format. Relative paths start from the pool file's root."""

    @abstractmethod
    def open(self, root: Path, tokenizer: TokenizerCard, where: str) -> InPlace | Documents:
        """What is there, checked as far as its sizes say.

        Raises:
            UserError: files that are missing, damaged or of another format; a library that is not installed.
        """

    @abstractmethod
    def paths(self, root: Path) -> list[Path]:
        """The files and folders that are read, for a key that changes when they do."""


def mapped(extent: Extent, dtype: TokenType) -> Array:
    """The tokens of an extent of an absolute path."""
    if extent.tokens == 0:
        return np.zeros(0, dtype=dtype)
    kind = np.dtype(dtype).newbyteorder("<")
    return np.asarray(np.memmap(extent.file, dtype=kind, mode="r", offset=extent.byte, shape=(extent.tokens,)))


def existing(path: Path, where: str, what: str = "file") -> Path:
    """`path`, absolute, if it is a file (or a folder, where `what` says so) with something in it."""
    if not path.exists():
        raise UserError(f"{where}: {path} is not there")
    if path.is_dir() != (what == "folder"):
        raise UserError(f"{where}: {path} is a {'folder' if path.is_dir() else 'file'}; a {what} is accepted")
    if what == "file" and path.stat().st_size == 0:
        raise UserError(f"{where}: {path} is empty")
    return path.resolve()


def count_rows(packed: bool, rows: Callable[[], Iterator[Array]], end: int, where: str) -> Documents:
    """Documents of rows: the rows themselves, or, `packed`, what the ends of text cut them into.

    Raises:
        UserError: rows that are said to be documents and hold an end of text before their last token.
    """
    if packed:
        return Documents(sum(1 for _ in _cut(rows(), end)), lambda: _cut(rows(), end))
    count = 0
    for row in rows():
        inside = np.flatnonzero(row[:-1] == end)
        if len(inside):
            raise UserError(
                f"{where}: row {count} has the end of text ({end}) as its token {inside[0]}, so that rows are not "
                "documents; say packed: true"
            )
        count += 1
    return Documents(count, rows)


def _cut(rows: Iterator[Array], end: int) -> Iterator[Array]:
    """Documents of rows that cut them anywhere."""
    open_parts: list[Array] = []
    for row in rows:
        *whole, rest = np.split(row, np.flatnonzero(row == end) + 1)
        for part in whole:
            yield np.concatenate([*open_parts, part])
            open_parts = []
        if len(rest):
            open_parts.append(rest)
    if open_parts:
        yield np.concatenate(open_parts)
