"""Writes the files of one split as its tokens come: shards of bounded size, document starts, question marks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.lib.format
import numpy.typing as npt

from davinci.data.cards import Extent, Split
from davinci.store import sync

SHARD_TOKENS = 1 << 29  # of a file: 1 GiB in uint16, 2 GiB in uint32
_PIECE = 1 << 22


class SplitWriter:
    """Appends documents to a split; memory holds what is appended at once.

    Args:
        folder: where the files go: ``train.bin`` alone while the split fits in one, else ``train.00000.bin``, …; so the
            question marks, which there are where any document asks; ``train.index.npy``, the first token of each
            document (uint64).
        split: ``train`` or ``heldout``.
        dtype: of the tokens.
        shard_tokens: of a file.
    """

    def __init__(self, folder: Path, split: Split, dtype: npt.DTypeLike, shard_tokens: int = SHARD_TOKENS) -> None:
        self._folder, self._split = folder, split
        self._tokens = _Files(folder, split, np.dtype(dtype).newbyteorder("<"), shard_tokens)
        self._marks: _Files | None = None
        self._index = IndexWriter(folder / f"{split}.index.npy")
        self._shard_tokens = shard_tokens

    @property
    def dtype(self) -> str:
        return self._tokens.dtype.name

    @property
    def tokens(self) -> int:
        return self._tokens.count

    @property
    def documents(self) -> int:
        return self._index.count

    def add(self, tokens: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> None:
        """Append documents laid end to end: `lengths` int64[n, 2] are tokens of question and rest."""
        sizes = lengths.sum(axis=1)
        self._index.add(self.tokens + sizes.cumsum() - sizes)
        if self._marks is None and lengths[:, 0].any():
            self._marks = _Files(self._folder, f"{self._split}.question", np.dtype(np.uint8), self._shard_tokens)
            for begin in range(0, self.tokens, _PIECE):
                self._marks.add(np.zeros(min(_PIECE, self.tokens - begin), dtype=np.uint8))
        self._tokens.add(tokens)
        if self._marks is not None:
            asks = np.tile(np.array([1, 0], dtype=np.uint8), len(lengths))
            self._marks.add(np.repeat(asks, lengths.ravel()))

    def close(self) -> tuple[tuple[Extent, ...], dict[str, str], dict[str, str]]:
        """Finish the files: the extents (none where one file is all), SHA-256 of each file, and of each content by the
        name that its file has where one is all."""
        index = self._index.close()
        whole = {**self._tokens.close(), f"{self._split}.index.npy": index}
        whole |= {} if self._marks is None else self._marks.close()
        files = {**self._tokens.files, f"{self._split}.index.npy": index}
        files |= {} if self._marks is None else self._marks.files
        extents = self._tokens.extents
        return (extents if len(extents) > 1 else ()), files, whole


class _Files:
    """One array in files of at most `most` items."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any], most: int) -> None:
        self._folder, self._name, self.dtype, self._most = folder, name, dtype, most
        self._whole = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._left = 0
        self.count = 0
        self.files: dict[str, str] = {}
        self._sizes: list[int] = []
        self._open()

    @property
    def extents(self) -> tuple[Extent, ...]:
        width = self.dtype.itemsize
        return tuple(
            Extent(file=name, tokens=size, size=size * width)
            for name, size in zip(sorted(self.files), self._sizes, strict=True)
        )

    def add(self, items: npt.NDArray[Any]) -> None:
        items = np.ascontiguousarray(items, dtype=self.dtype)
        self.count += len(items)
        while len(items):
            if self._left == 0:
                self._finish()
                self._open()
            part, items = items[: self._left], items[self._left :]
            data = part.view(np.uint8).data
            assert self._file is not None
            self._file.write(data)
            self._digest.update(data)
            self._whole.update(data)
            self._left -= len(part)
            self._sizes[-1] += len(part)

    def close(self) -> dict[str, str]:
        """Finish; SHA-256 of the whole array."""
        self._finish()
        return {f"{self._name}.bin": self._whole.hexdigest()}

    def _open(self) -> None:
        if self._sizes == [self._most]:  # the first was not all
            first = self._path(None).rename(self._path(0))
            self.files = {first.name: self.files.pop(f"{self._name}.bin")}
        self._file = self._path(len(self._sizes) or None).open("wb")
        self._digest = hashlib.sha256()
        self._left = self._most
        self._sizes.append(0)

    def _finish(self) -> None:
        assert self._file is not None
        path = Path(self._file.name)
        self._file.close()
        sync(path)
        self.files[path.name] = self._digest.hexdigest()

    def _path(self, number: int | None) -> Path:
        return self._folder / (f"{self._name}.bin" if number is None else f"{self._name}.{number:05d}.bin")


class IndexWriter:
    """Writes a ``.npy`` file of uint64 whose length is not known before its end."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("w+b")
        self.count = 0
        self._head()

    def add(self, items: npt.NDArray[np.int64]) -> None:
        self._file.write(np.ascontiguousarray(items, dtype="<u8").view(np.uint8).data)
        self.count += len(items)

    def close(self) -> str:
        """Finish the file; its SHA-256."""
        self._file.seek(0)
        self._head()  # numpy leaves room for the length to grow
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        self._file.close()
        sync(self._path)
        return digest

    def _head(self) -> None:
        head = {"descr": "<u8", "fortran_order": False, "shape": (self.count,)}
        numpy.lib.format.write_array_header_1_0(self._file, head)


def content_digest(whole: dict[str, str]) -> str:
    """What a variant holds, however it is cut into files: SHA-256 over the digests and names of its contents."""
    lines: list[str] = [f"{digest}  {name}\n" for name, digest in sorted(whole.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
