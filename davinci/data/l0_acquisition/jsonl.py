"""JSON lines: plain, ``.gz``, ``.bz2``, ``.zst`` or ``.zstd``."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from davinci.data.documents import Document
from davinci.data.l0_acquisition.files import Patterns
from davinci.data.l0_acquisition.paths import Found, files_of, find
from davinci.data.l0_acquisition.rows import RowReader
from davinci.data.operations import Places, operation
from davinci.data.tally import Tally
from davinci.errors import UserError

_COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".zst": lambda path: io.BufferedReader(pa.input_stream(str(path), compression="zstd"), 1 << 20),
}
_COMPRESSED[".zstd"] = _COMPRESSED[".zst"]
_BLOCK = 1 << 20


@operation("jsonl")
class Jsonl(RowReader):
    """A document a line of the files that match `paths`; a plain file of more than `part_bytes` is read in parts.

    A document without a field for its id is named by its file and the byte its line begins at (of the text, where the
    file is compressed).
    """

    paths: Patterns

    def parts(self, places: Places) -> list[dict[str, Any]]:
        return [part for one in find(self.paths, places.root) for part in self._cut(one)]

    def _cut(self, one: Found) -> list[dict[str, Any]]:
        stated = one.stated()
        size = stated["bytes"]
        step = size if one.path.suffix in _COMPRESSED else self.part_bytes
        ranges = [(begin, min(begin + step, size)) for begin in range(0, size, max(1, step))] or [(0, 0)]
        return [{"files": [stated], "begin": begin, "end": end, "bytes": end - begin} for begin, end in ranges]

    def provenance(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return files_of(parts)

    def read(self, part: Mapping[str, Any], places: Places, tally: Tally) -> Iterator[Document]:
        (file,) = part["files"]
        name, path = file["name"], Path(file["path"])
        numbers = _Numbers(path)
        limit = 2 * self.largest  # an escaped text is longer than itself, rarely by more
        for offset, line in _lines(path, part["begin"], None if path.suffix in _COMPRESSED else part["end"], limit):
            if len(line) > limit:
                tally.drop(Document(f"{name}:{offset}", name, ""), f"larger than {self.largest} bytes")
                continue
            place = functools.partial(numbers.line, offset)
            try:
                row = json.loads(line)
            except ValueError:
                if line.strip():
                    tally.unreadable(place(), "not JSON", line[:400].decode("utf-8", "replace"))
                continue
            one = self.document(row, f"{name}:{offset}", {"file": name, "offset": offset}, tally, place)
            found = [] if one is None else [one]
            del line, row, one  # they may be very long
            while found:
                yield found.pop()


def _lines(path: Path, begin: int, end: int | None, limit: int) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in ``[begin, end)``, each with the byte it begins at; of a long one `limit` + 1 bytes."""
    try:
        with _open(path) as file:
            offset = begin
            if begin:
                file.seek(begin - 1)
                offset += _skip_line(file) - 1  # the rest of a line that begins before
            while end is None or offset < end:
                line = file.readline(limit + 1)
                if not line:
                    return
                end_of_line = offset + len(line)
                is_cut = len(line) > limit and not line.endswith(b"\n")
                box = [line]
                del line
                yield offset, box.pop()
                offset = end_of_line + (_skip_line(file) if is_cut else 0)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise UserError(f"{path}: damaged, or cut short ({' '.join(str(error).split())})") from None


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of a line; how many bytes that were."""
    skipped = 0
    while piece := file.readline(_BLOCK):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _open(path: Path) -> BinaryIO:
    found: BinaryIO = _COMPRESSED[path.suffix](path) if path.suffix in _COMPRESSED else path.open("rb")
    return found


class _Numbers:
    """Line numbers of places that come in order, counted only where something is wrong there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._offset, self._number = 0, 1

    def line(self, offset: int) -> str:
        """File and number, from 1, of the line that begins at byte `offset`."""
        self._file = self._file or _open(self._path)
        while self._offset < offset:
            block = self._file.read(min(_BLOCK, offset - self._offset))
            self._number += block.count(b"\n")
            self._offset += len(block)
        return f"{self._path}:{self._number}"
