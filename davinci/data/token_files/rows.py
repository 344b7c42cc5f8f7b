"""Rows that another library reads: Hugging Face datasets, LitData, MosaicML streaming (MDS). They are copied."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from davinci.data.cards import TokenizerCard, TokenType
from davinci.data.token_files.given import Array, Documents, TokenFiles, count_rows, existing
from davinci.errors import UserError, nearest


class Rows(TokenFiles):
    """A folder of rows of tokens: a row is a document, or with `packed` a piece of a text in which the end of text
    closes each document."""

    path: str
    packed: bool = False

    def open(self, root: Path, tokenizer: TokenizerCard, where: str) -> Documents:
        return count_rows(self.packed, self._rows(root, where), tokenizer.end_of_text, where)

    def paths(self, root: Path) -> list[Path]:
        return [root / self.path]

    @abstractmethod
    def _rows(self, root: Path, where: str) -> Callable[[], Iterator[Array]]: ...


class HuggingFace(Rows):
    """A folder that `datasets` saved (``save_to_disk``); of a set of splits, `split`."""

    split: str = "train"
    column: str = "input_ids"

    def _rows(self, root: Path, where: str) -> Callable[[], Iterator[Array]]:
        datasets = _library("datasets", "datasets", where)
        folder = existing(root / self.path, f"{where}.path", "folder")
        try:
            found = datasets.load_from_disk(str(folder))
        except Exception as error:
            raise UserError(f"{where}.path: {folder} is no data set that datasets saved ({_line(error)})") from None
        if isinstance(found, datasets.DatasetDict):
            if self.split not in found:
                raise UserError(f"{where}.split: {folder} has no split {self.split!r}" + nearest(self.split, found))
            found = found[self.split]
        if self.column not in found.column_names:
            raise UserError(
                f"{where}.column: {folder} has no column {self.column!r}" + nearest(self.column, found.column_names)
            )
        kept = found.select_columns([self.column]).with_format("arrow")

        def rows() -> Iterator[Array]:
            for table in kept.iter(batch_size=1000):
                for row in table.column(0):
                    yield _integers(row.values.to_numpy(zero_copy_only=False), where)

        return rows


class LitData(Rows):
    """A folder that LitData's `optimize` wrote, a row a sample, for its own loader of samples or for `TokensLoader`."""

    def _rows(self, root: Path, where: str) -> Callable[[], Iterator[Array]]:
        litdata = _library("litdata", "litdata", where)
        folder = existing(root / self.path, f"{where}.path", "folder")
        index = _index(folder, where)
        if index["config"].get("item_loader") == "TokensLoader":
            return functools.partial(_token_chunks, folder, index, where)

        def rows() -> Iterator[Array]:
            for row in litdata.StreamingDataset(str(folder), shuffle=False, drop_last=False):
                yield _integers(np.asarray(row), where)

        return rows


def _token_chunks(folder: Path, index: dict[str, Any], where: str) -> Iterator[Array]:
    """The samples that `TokensLoader` would read as one stream: a chunk says how many it holds and where each begins
    (uint32, all bytes from the file's beginning), then come their tokens."""
    config = index["config"]
    if config.get("compression") or config.get("encryption"):
        raise UserError(f"{where}.path: {folder} has compressed or encrypted chunks; optimize it without")
    kind, _, number = config["data_format"][0].partition(":")
    constants = importlib.import_module("litdata.constants")
    known = constants._TORCH_DTYPES_MAPPING if kind.endswith("tensor") else constants._NUMPY_DTYPES_MAPPING
    dtype = np.dtype(str(known[int(number)]).removeprefix("torch."))
    for chunk in index["chunks"]:
        path = existing(folder / chunk["filename"], f"{where}.path")
        content = np.memmap(path, dtype=np.uint8, mode="r")
        ends = content[4 : 8 + 4 * chunk["chunk_size"]].view("<u4")
        if len(ends) != chunk["chunk_size"] + 1 or ends[-1] != len(content):
            raise UserError(f"{where}.path: {path} is damaged, or cut short")
        for begin, end in itertools.pairwise(ends.tolist()):
            yield _integers(content[begin:end].view(dtype), where)


class Mds(Rows):
    """A folder that MosaicML streaming's `MDSWriter` wrote. `column` holds an array, or bytes of `dtype`."""

    column: str = "tokens"
    dtype: TokenType = "int64"

    def _rows(self, root: Path, where: str) -> Callable[[], Iterator[Array]]:
        _library("streaming", "mosaicml-streaming", where)
        formats = importlib.import_module("streaming.base.format")
        folder = existing(root / self.path, f"{where}.path", "folder")
        shards = _index(folder, where)["shards"]

        def rows() -> Iterator[Array]:
            for shard in shards:
                reader = formats.reader_from_json(str(folder), None, shard)
                if self.column not in shard["column_names"]:
                    raise UserError(
                        f"{where}.column: {folder} has no column {self.column!r}"
                        + nearest(self.column, shard["column_names"])
                    )
                raw = folder / shard["raw_data"]["basename"]
                size = shard["raw_data"]["bytes"]
                if not raw.is_file() or raw.stat().st_size != size:
                    raise UserError(
                        f"{where}.path: {raw} is not there with the {size:,} bytes that index.json says; compressed "
                        "shards are to be decompressed first"
                    )
                for number in range(len(reader)):
                    cell = reader[number][self.column]
                    row = np.frombuffer(cell, dtype=self.dtype) if isinstance(cell, bytes) else np.asarray(cell)
                    yield _integers(row, where)

        return rows


def _library(module: str, package: str, where: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{where}: needs the package {package} (pip install {package}): {error}") from None


def _index(folder: Path, where: str) -> dict[str, Any]:
    path = folder / "index.json"
    if not path.is_file():
        raise UserError(f"{where}.path: {folder} has no index.json")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{where}.path: {path} is not JSON ({error})") from None


def _integers(row: Array, where: str) -> Array:
    if row.dtype.kind not in "iu" or row.ndim != 1:
        raise UserError(f"{where}: a row is an array of {row.dtype} in {row.ndim} dimensions, no row of token ids")
    return row


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:120]
