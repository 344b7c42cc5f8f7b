"""The records of an offline W&B file (``run-*.wandb``), many at a time: LevelDB's log framing as arrays.

After a 7-byte header, blocks of 32 KiB hold chunks of crc32 (of type and data), length, type (1 whole, 2 first, 3
middle, 4 last part of a record) and data (github.com/google/leveldb, doc/log_format.md). Where a chunk ends only its
header says, but a block always begins with one: the n-th chunks of all blocks are found at once. What a killed process
or a full disk left of the last record is ignored; a chunk that fails its checksum costs the rest of its block.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path

import numpy as np

from analysis.byte_arrays import by_row, numbers_at
from davinci.errors import UserError

_BLOCK = 32768
_AT_ONCE = 256 * _BLOCK
_HEAD = 7  # bytes before a chunk's data, and before a file's first block
_WHOLE, _FIRST, _LAST = 1, 2, 4
_DAMAGED = 0
SPARE = 512
_SALT = np.array([zlib.crc32(bytes([kind])) for kind in range(5)])
_HEADER = b":W&B\xe1\xbe\x00"


@dataclass
class Records:
    """Records that follow one another: the n-th is ``data[begin[n]:end[n]]``; `damaged` chunks were among them.

    `SPARE` zeros end the data, so that a length that is none leads nowhere.
    """

    data: bytearray
    begin: np.ndarray
    end: np.ndarray
    damaged: int


def records(path: Path) -> Iterator[Records]:
    """The whole records of a file, some megabytes at a time.

    Raises:
        UserError: it is no W&B file, or cannot be read.
    """
    parts: list[bytes] = []  # of a record that goes on in the next block
    try:
        with path.open("rb") as file:
            start = _HEAD
            room = min(_AT_ONCE, (file.seek(0, SEEK_END) // _BLOCK + 1) * _BLOCK)
            file.seek(0)
            while size := file.readinto(data := bytearray(room)):
                del data[size:]
                if start and not data.startswith(_HEADER[:size]):
                    raise UserError(
                        f"{path}: not a W&B file of the format that is known (header {bytes(data[:_HEAD])!r})"
                    )
                begin, length, kind, stopped = _chunks(data, start)
                yield _joined(data, begin, begin + length, kind, parts)
                if stopped:
                    return
                start = 0
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _chunks(data: bytearray, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """The chunks of whole blocks, the first of which begins with `start` bytes that are none of a chunk's.

    Returns:
        int64[chunks] each: where its data begins, its length and its type, which is `_DAMAGED` for one whose checksum
        fails; and whether what was written ends here.
    """
    firsts = np.arange(0, len(data), _BLOCK)
    limits = np.minimum(firsts + _BLOCK, len(data))
    block, at, limit = np.arange(len(firsts)), firsts.copy(), limits
    at[0] = start
    odd = np.zeros(len(firsts), bool)
    blocks, found = [], []
    lengths, kinds = numbers_at(data, 4, "<u2"), numbers_at(data, 6, "u1")
    while True:
        if (done := at > limit - _HEAD).any():
            block, at, limit = block[~done], at[~done], limit[~done]
        if not len(block):
            break
        stop = at + lengths[at] + _HEAD
        if (bad := (stop > limit) | (kinds[at] - 1 > 3)).any():
            odd[block[bad]] = True
            block, at, limit, stop = block[~bad], at[~bad], limit[~bad], stop[~bad]
        blocks.append(block)
        found.append(at)
        at = stop
    where, header = by_row(blocks, found)
    length, kind = lengths[header].astype(np.int64), kinds[header].astype(np.int64)
    stored = numbers_at(data, 0, "<u4")[header]
    begin = header + _HEAD
    slices = map(slice, begin.tolist(), (begin + length).tolist())
    sums = map(zlib.crc32, map(memoryview(data).__getitem__, slices), _SALT[kind].tolist())
    wrong = np.fromiter(sums, np.int64, len(begin)) != stored
    odd[where[wrong]] = True
    if not odd.any():
        return begin, length, kind, False
    regular = ~odd[where]
    walked = []
    stopped = False
    for index in np.flatnonzero(odd).tolist():
        some, stopped = _walked(data, max(start, index * _BLOCK), int(limits[index]))
        walked += some
        if stopped:
            regular &= where < index
            break
    more = np.array(walked, np.int64).reshape(-1, 3).T
    begin, length, kind = (np.append(part[regular], one) for part, one in zip((begin, length, kind), more, strict=True))
    order = np.argsort(begin, kind="stable")
    return begin[order], length[order], kind[order], stopped


def _walked(data: bytearray, at: int, limit: int) -> tuple[list[tuple[int, int, int]], bool]:
    """The chunks of a block in which something is not as it should be, one by one: as `_chunks` returns them."""
    found: list[tuple[int, int, int]] = []
    while limit - at >= _HEAD:
        crc, length, kind = (int.from_bytes(data[at + a : at + b], "little") for a, b in ((0, 4), (4, 6), (6, 7)))
        begin, stop = at + _HEAD, at + _HEAD + length
        whole = stop <= at - at % _BLOCK + _BLOCK and _WHOLE <= kind <= _LAST
        if whole and stop > limit:
            return found, True  # torn: the writer was killed here
        if not whole or zlib.crc32(data[begin:stop], int(_SALT[kind])) != crc:
            if not any(data[at:limit]):
                return found, True  # never written
            return [*found, (begin, 0, _DAMAGED)], False
        found.append((begin, length, kind))
        at = stop
    return found, False


def _joined(data: bytearray, begin: np.ndarray, end: np.ndarray, kind: np.ndarray, parts: list[bytes]) -> Records:
    """Records from chunks; those in parts are added to `data`. `parts` is what the chunks before left over."""
    kept = kind == _WHOLE
    for index in np.flatnonzero(~kept).tolist():
        one = bytes(data[begin[index] : end[index]])
        if kind[index] in (_DAMAGED, _FIRST):
            parts[:] = [one] if kind[index] == _FIRST else []
        elif parts:  # without a first part: that was in a damaged block
            parts.append(one)
            if kind[index] == _LAST:
                kept[index], begin[index] = True, len(data)
                data += b"".join(parts)
                end[index] = len(data)
                parts.clear()
    data += bytes(SPARE)
    return Records(data, begin[kept], end[kept], int((kind == _DAMAGED).sum()))
