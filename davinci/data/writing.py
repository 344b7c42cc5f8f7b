"""Writes one source at one level: tokens, document starts, question marks, held-out documents."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from davinci.data.documents import Document
from davinci.data.tokenizer import END_OF_TEXT_ID, Encoder
from davinci.store import file_digest, read_json, write_json

RECORD = "variant.json"
_END = np.array([END_OF_TEXT_ID], dtype=np.uint16)


def write_variant(
    folder: Path,
    documents: list[Document],
    heldout_fraction: float,
    encoder: Encoder,
    key: str,
    chain: list[dict[str, Any]],
) -> None:
    """Write `folder` in one step (temporary folder, rename), with its part of the card in ``variant.json``.

    Args:
        folder: ``<source>@<depth>`` of the pool.
        documents: in the order they are stored.
        heldout_fraction: share of split keys that are held out.
        encoder: knows every document's text (its question and the rest apart, where it has a question).
        key: what the folder was made from; `read_variant` returns it only for the same key.
        chain: the operations that made the documents, for the card.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        heldout = _distinct([one for one in documents if one.is_heldout(heldout_fraction)])
        train = [one for one in documents if not one.is_heldout(heldout_fraction)]
        card: dict[str, Any] = {"chain": chain}
        for split, prefix, chosen in (("train", "", train), ("heldout", "heldout_", heldout)):
            card[f"{prefix}tokens"] = _write_split(temporary, split, chosen, encoder)
            card[f"{prefix}documents"] = len(chosen)
            card[f"{prefix}bytes"] = sum(len(one.text.encode()) for one in chosen)
        with (temporary / "heldout.jsonl").open("w", encoding="utf-8") as file:
            for one in heldout:
                file.write(json.dumps({"id": one.id, "text": one.text, **one.fields}, sort_keys=True) + "\n")
        card["digest"] = folder_digest(temporary)
        write_json(temporary / RECORD, {"key": key, "card": card})
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_variant(folder: Path, key: str) -> dict[str, Any] | None:
    """The card part of a folder written for `key`, or None."""
    if not (folder / RECORD).is_file():
        return None
    record = read_json(folder / RECORD)
    return dict(record["card"]) if record["key"] == key else None


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and digests of the train and held-out files."""
    files = sorted(path for pattern in ("train.*", "heldout.*") for path in folder.glob(pattern))
    lines = "".join(f"{file_digest(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _distinct(documents: list[Document]) -> list[Document]:
    """Held-out documents are for measuring: the same text twice measures nothing more."""
    return list({one.text: one for one in reversed(documents)}.values())[::-1]


def _write_split(folder: Path, split: str, documents: list[Document], encoder: Encoder) -> int:
    """Write the tokens, starts and question marks of one split; return how many tokens."""
    parts: list[np.ndarray[Any, Any]] = [_END[:0]]
    lengths = np.zeros((len(documents), 2), dtype=np.int64)  # question, rest
    for index, one in enumerate(documents):
        question = encoder[one.question] if one.question else _END[:0]
        rest = encoder[one.text.removeprefix(one.question)]
        parts += [question, rest, _END]
        lengths[index] = len(question), len(rest) + 1
    ends = lengths.sum(axis=1).cumsum()
    np.concatenate(parts).astype("<u2").tofile(folder / f"{split}.bin")
    np.save(folder / f"{split}.index.npy", np.concatenate([[0], ends[:-1]])[: len(documents)].astype("<u8"))
    if lengths[:, 0].any():
        asks = np.tile(np.array([1, 0], dtype=np.uint8), len(documents))
        np.repeat(asks, lengths.ravel()).tofile(folder / f"{split}.question.bin")
    return int(ends[-1]) if len(documents) else 0
