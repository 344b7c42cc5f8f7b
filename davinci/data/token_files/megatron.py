"""Megatron-LM's indexed dataset: ``PREFIX.bin`` with the tokens, ``PREFIX.idx`` with what they are.

The index is, little-endian: ``MMIDIDX\\0\\0``; uint64 version 1; uint8 code of the tokens' type; uint64 sequences n;
uint64 document indices m; int32[n] lengths in tokens; int64[n] first bytes; int64[m] the first sequence of each
document and n at the end; perhaps int8[n] modes (Megatron-LM, megatron/core/datasets/indexed_dataset.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from davinci.data.cards import BYTES, Extent, TokenizerCard, TokenType
from davinci.data.token_files.given import CHUNK, Array, Documents, InPlace, TokenFiles, existing, mapped
from davinci.errors import UserError

_MAGIC = b"MMIDIDX\x00\x00"
_HEAD = struct.Struct("<9sQBQQ")
_TYPES: dict[int, TokenType] = {4: "int32", 5: "int64", 8: "uint16"}


class Megatron(TokenFiles):
    """One dataset: `prefix` is its path without ``.bin`` or ``.idx``.

    Documents are the index's. Where each ends with the end of text (``--append-eod``) they are read in place, else they
    are copied, and those without one get it.
    """

    prefix: str

    def open(self, root: Path, tokenizer: TokenizerCard, where: str) -> InPlace | Documents:
        tokens, index = (existing(path, f"{where}.prefix") for path in self.paths(root))
        kind, ends = _read_index(index, f"{where}.prefix: {index}")
        total = int(ends[-1]) if len(ends) else 0
        size = tokens.stat().st_size
        if size != total * BYTES[kind]:
            raise UserError(
                f"{where}.prefix: {tokens} has {size:,} bytes where its index says {total * BYTES[kind]:,}; one of the "
                "two is not whole, or not of the other"
            )
        extent = Extent(file=str(tokens), tokens=total, size=size)
        row = mapped(extent, kind)
        if all((row[part - 1] == tokenizer.end_of_text).all() for part in _pieces(ends)):
            return InPlace((extent,), kind, ends)

        def documents() -> Iterator[Array]:
            begin = 0
            for end in ends.tolist():
                yield row[begin:end]
                begin = end

        return Documents(len(ends), documents)

    def paths(self, root: Path) -> list[Path]:
        whole = str(root / self.prefix)
        stem = whole[:-4] if whole.endswith((".bin", ".idx")) else whole
        return [Path(f"{stem}.bin"), Path(f"{stem}.idx")]


def _pieces(array: Array) -> Iterator[Array]:
    return (array[begin : begin + CHUNK] for begin in range(0, len(array), CHUNK))


def _read_index(path: Path, where: str) -> tuple[TokenType, Array]:
    """The tokens' type, and where each document that has any ends, int64[documents]."""
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
    if head[: len(_MAGIC)] != _MAGIC:
        raise UserError(f"{where} does not begin with MMIDIDX: no index of Megatron-LM")
    if len(head) < _HEAD.size:
        raise UserError(f"{where} ends within its header")
    _, version, code, sequences, documents = _HEAD.unpack(head)
    if version != 1:
        raise UserError(f"{where} is of version {version}; accepted is 1")
    if code not in _TYPES:
        accepted = ", ".join(f"{number} ({name})" for number, name in _TYPES.items())
        raise UserError(f"{where} has tokens of type {code}; accepted are {accepted}")
    least = _HEAD.size + 12 * sequences + 8 * documents
    size = path.stat().st_size
    if size not in (least, least + sequences):
        raise UserError(f"{where} has {size:,} bytes where {sequences:,} sequences take {least:,}")
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    begin = _HEAD.size
    lengths = np.asarray(raw[begin : begin + 4 * sequences]).view("<i4")
    pointers = np.asarray(raw[begin + 4 * sequences : begin + 12 * sequences]).view("<i8")
    bounds = np.asarray(raw[begin + 12 * sequences : least]).view("<i8")
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if (lengths < 0).any() or (pointers != ends[:-1] * BYTES[_TYPES[code]]).any():
        raise UserError(f"{where} has sequences that do not lie end to end")
    if documents == 0 or bounds[0] != 0 or bounds[-1] != sequences or (np.diff(bounds) < 0).any():
        raise UserError(f"{where} has documents that do not hold its {sequences:,} sequences in order")
    found = ends[bounds[1:]]
    return _TYPES[code], found[np.diff(found, prepend=0) > 0]
