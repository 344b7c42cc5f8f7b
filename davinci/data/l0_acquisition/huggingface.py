"""Rows of a Hugging Face dataset: one of the hub, one that `datasets` builds from local files, or one saved to disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from davinci.data.documents import Document
from davinci.data.l0_acquisition.rows import RowReader
from davinci.data.operations import Places, operation
from davinci.data.tally import Tally
from davinci.errors import UserError, nearest


@operation("huggingface")
class HuggingFace(RowReader):
    """A document a row of `split` of a dataset.

    `dataset` is a name on the hub, a folder that holds the dataset's files (relative to the pool's file), or one that
    `save_to_disk` wrote. `revision` pins a dataset of the hub. It is downloaded into the library's cache, as a whole;
    what is too large for that is read by `parquet` or `jsonl` from files.
    """

    dataset: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    def parts(self, places: Places) -> list[dict[str, Any]]:
        rows = self._rows(places)
        for name in self.fields:
            if name not in rows.column_names:
                raise UserError(f"huggingface: {self.dataset} has no column {name}" + nearest(name, rows.column_names))
        count = len(rows)
        each = max(1, self.part_bytes * count // max(1, rows.data.nbytes))
        known = {"dataset": self.dataset, "fingerprint": rows._fingerprint}
        ranges = range(0, max(1, count), each)
        return [
            known | {"begin": begin, "end": min(begin + each, count), "bytes": min(each, count)} for begin in ranges
        ]

    def provenance(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        known = {"dataset": self.dataset, "config": self.config, "split": self.split, "revision": self.revision}
        return known | {"fingerprint": parts[0]["fingerprint"], "rows": parts[-1]["end"]}

    def read(self, part: Mapping[str, Any], places: Places, tally: Tally) -> Iterator[Document]:
        rows = self._rows(places).select_columns(self.fields)
        name = f"{self.dataset.rstrip('/').rpartition('/')[2]}/{self.split}"
        about = {"dataset": self.dataset, "split": self.split}
        for number in range(part["begin"], part["end"]):
            document = self.document(rows[number], f"{name}:{number}", {**about, "row": number}, tally)
            if document is not None:
                yield document

    def _rows(self, places: Places) -> Any:
        """The dataset of the split, memory-mapped."""
        import datasets

        datasets.disable_progress_bars()
        folder = places.root / Path(self.dataset).expanduser()
        try:
            if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
                found = datasets.load_from_disk(str(folder))
                if isinstance(found, datasets.DatasetDict):
                    if self.split not in found:
                        raise UserError(f"huggingface: {folder} has no split {self.split}" + nearest(self.split, found))
                    found = found[self.split]
                return found
            name = str(folder) if folder.is_dir() else self.dataset
            return datasets.load_dataset(name, self.config, split=self.split, revision=self.revision)
        except UserError:
            raise
        except Exception as error:  # of the library, of the hub's client, of pyarrow
            said = " ".join(str(error).split())[:300]
            raise UserError(f"huggingface: {self.dataset} cannot be read ({type(error).__name__}: {said})") from None
