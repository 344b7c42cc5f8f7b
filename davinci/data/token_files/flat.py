"""Flat files of tokens, one after the other: nanoGPT's ``.bin``, OLMo's ``.npy`` (which has no header), numpy's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.lib.format
from pydantic import Field

from davinci.data.cards import BYTES, Extent, TokenizerCard, TokenType
from davinci.data.token_files.given import InPlace, TokenFiles, existing
from davinci.data.tokenizer import token_dtype
from davinci.errors import UserError

_MAGIC = b"\x93NUMPY"


class Flat(TokenFiles):
    """Files in their order (names or globs). The end of text closes each document.

    A file that begins with numpy's magic has a header, which says its type; any other is nothing but tokens of `dtype`,
    by default the smallest unsigned type that holds the vocabulary.
    """

    files: Annotated[tuple[str, ...], Field(min_length=1)]
    dtype: TokenType | None = None

    def open(self, root: Path, tokenizer: TokenizerCard, where: str) -> InPlace:
        bare: TokenType = self.dtype or token_dtype(tokenizer.vocab_size)
        found = [_extent(existing(path, f"{where}.files"), bare, where) for path in self._found(root, where)]
        kinds = {kind: extent.file for extent, kind in found}
        if len(kinds) > 1:
            names = ", ".join(f"{kind} in {Path(file).name}" for kind, file in sorted(kinds.items()))
            raise UserError(f"{where}.files: of one type they must be, but are {names}")
        return InPlace(tuple(extent for extent, _ in found), found[0][1])

    def paths(self, root: Path) -> list[Path]:
        return self._found(root, "files")

    def _found(self, root: Path, where: str) -> list[Path]:
        found: list[Path] = []
        for name in self.files:
            path = root / name
            some = [path] if path.exists() or not set("*?[") & set(name) else sorted(_globbed(root, name))
            if not some:
                raise UserError(f"{where}.files: no file is {name!r}")
            found += some
        return found


def _globbed(root: Path, name: str) -> list[Path]:
    whole = root / name
    return list(Path(whole.anchor).glob(str(whole.relative_to(whole.anchor))))


def _extent(path: Path, bare: TokenType, where: str) -> tuple[Extent, TokenType]:
    """A file's tokens, and their type."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            if size % BYTES[bare]:
                raise UserError(f"{where}.dtype: {path} has {size:,} bytes, no multiple of the {BYTES[bare]} of {bare}")
            return Extent(file=str(path), tokens=size // BYTES[bare], size=size), bare
        file.seek(0)
        try:
            version = numpy.lib.format.read_magic(file)
            read = numpy.lib.format.read_array_header_1_0 if version == (1, 0) else None
            shape, fortran, kind = (read or numpy.lib.format.read_array_header_2_0)(file)
        except ValueError as error:
            raise UserError(f"{where}.files: {path} has a damaged numpy header ({error})") from None
        name = next((one for one in BYTES if kind == np.dtype(one).newbyteorder("<")), None)
        if name is None or (fortran and len(shape) > 1):
            raise UserError(f"{where}.files: {path} is an array of {kind}; accepted are {', '.join(BYTES)}, row by row")
        tokens, begin = int(np.prod(shape, dtype=np.int64)), file.tell()
    if size != begin + tokens * kind.itemsize:
        raise UserError(
            f"{where}.files: {path} has {size:,} bytes where its header says {begin + tokens * kind.itemsize:,}"
        )
    return Extent(file=str(path), tokens=tokens, size=size, byte=begin), name
