"""One contender of the benchmark of reading, in a process and an environment of its own.

Usage: python _token_readers.py CONTENDER FOLDER LENGTH ROWS. Writes ``FOLDER/tokens.npy`` (uint16) in the contender's
format, then reads ROWS sequences of LENGTH + 1 tokens in the order of ``FOLDER/order.LENGTH.npy`` and prints the
processor seconds that took. What it read is summed, so that equal sums show equal sequences.

streaming: MosaicML streaming, a sample a sequence, `StreamingDataset.__getitem__`. megatron: Megatron-LM's
`IndexedDataset` with an index of samples (document, offset) beside it, a sample joined of pieces of documents, as its
`GPTDataset` does.
"""

from __future__ import annotations

import importlib.machinery
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

Read = Callable[[int], npt.NDArray[np.int64]]
DOCUMENT = 700  # tokens


def main() -> None:
    contender, folder, length, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    tokens = np.load(folder / "tokens.npy", mmap_mode="r")
    order = np.load(folder / f"order.{length}.npy")[:rows].tolist()
    read = {"streaming": streaming, "megatron": megatron}[contender](folder / f"{contender}.{length}", tokens, length)
    best, total = float("inf"), 0
    for _ in range(3):
        started, total = time.process_time(), 0
        for chunk in order:
            total += int(read(chunk)[-1])
        best = min(best, time.process_time() - started)
    print(best, total)


def streaming(folder: Path, tokens: npt.NDArray[np.uint16], length: int) -> Read:
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = types.ModuleType(name)  # its data sets of pictures, which a CPU build of torch cannot load
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules["torchvision.datasets"].VisionDataset = object  # type: ignore[attr-defined]
    sys.modules["torchvision.transforms.functional"].to_tensor = None  # type: ignore[attr-defined]
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"tokens": f"ndarray:uint16:{length + 1}"}) as out:
        for chunk in range((len(tokens) - 1) // length):
            out.write({"tokens": np.array(tokens[chunk * length : chunk * length + length + 1])})
    data = StreamingDataset(local=str(folder), shuffle=False, batch_size=1)
    return lambda chunk: data[chunk]["tokens"].astype(np.int64)  # type: ignore[no-any-return]


def megatron(folder: Path, tokens: npt.NDArray[np.uint16], length: int) -> Read:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{folder}.bin", dtype=np.uint16)
    for begin in range(0, len(tokens), DOCUMENT):
        part = np.array(tokens[begin : begin + DOCUMENT]).astype(np.int32)
        builder.add_document(torch.from_numpy(part), [len(part)])
    builder.finalize(f"{folder}.idx")
    data = IndexedDataset(str(folder))
    starts = np.arange((len(tokens) - 1) // length + 1, dtype=np.int64) * length
    index = np.stack([starts // DOCUMENT, starts % DOCUMENT], axis=1)

    def read(chunk: int) -> npt.NDArray[np.int64]:
        (first, offset), (last, end) = index[chunk], index[chunk + 1]
        if first == last:
            return data.get(int(first), int(offset), length + 1).astype(np.int64)  # type: ignore[no-any-return]
        parts = [data.get(int(first), int(offset))]
        parts += [data.get(one) for one in range(int(first) + 1, int(last))]
        parts.append(data.get(int(last), 0, int(end) + 1))
        return np.concatenate(parts).astype(np.int64)

    return read


if __name__ == "__main__":
    main()
