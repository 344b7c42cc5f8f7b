"""Tokens that other programs wrote: every format gives the documents that were written, read in place or copied."""

import functools
import importlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_files import write_bytes_tokenizer

from davinci.config import parse
from davinci.data.cards import VariantCard
from davinci.data.shards import Shard
from davinci.data.token_files import read_tokens_from
from davinci.data.token_files.given import Documents, InPlace
from davinci.data.token_files.variant import heldout_runs, write_token_variant
from davinci.errors import UserError

SIZE = 300
END = SIZE - 1
DOCUMENTS = [list(range(n % 7, n % 7 + 1 + (n * 5) % 23)) for n in range(90)]


def closed(documents):
    return [np.array([*one, END]) for one in documents]


def megatron(folder, documents, dtype="uint16", modes=False):
    """As Megatron-LM's documentation of the format says, from the format alone."""
    codes = {"int32": 4, "int64": 5, "uint16": 8}
    sizes = [len(one) for one in documents]
    ends = np.cumsum([0, *sizes])[:-1] * np.dtype(dtype).itemsize
    (folder / "web.bin").write_bytes(b"".join(np.array(one, dtype=dtype).tobytes() for one in documents))
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, codes[dtype], len(sizes), len(sizes) + 1)
    rest = np.array(sizes, dtype="<i4").tobytes() + ends.astype("<i8").tobytes()
    rest += np.arange(len(sizes) + 1, dtype="<i8").tobytes()
    (folder / "web.idx").write_bytes(head + rest + (bytes(len(sizes)) if modes else b""))
    return {"megatron": {"prefix": "web"}}


def opened(said, root, card):
    return read_tokens_from(said, "pool.yaml: x").open(root, card, "pool.yaml: x")


def made(said, root, fraction=0.1, size=SIZE, **options):
    """The variant's card, and its training and held-out documents."""
    card = write_bytes_tokenizer(root / "pool", size)
    folder = root / "pool" / "s@L1"
    found = opened(said, root, card)
    written = write_token_variant(folder, found, fraction, card, "k", [], "pool.yaml: x", **options)
    variant = parse(VariantCard, written, where=str)
    splits = []
    for split in ("train", "heldout"):
        tokens = Shard(folder, split, variant).beginning(10**9)
        starts = np.load(folder / f"{split}.index.npy").astype(np.int64)
        splits.append([one.tolist() for one in np.split(tokens, starts)[1:]])
        assert len(starts) == 0 or starts[0] == 0
    assert len(tokens) == variant.heldout_tokens and len(starts) == variant.heldout_documents
    lines = [json.loads(line) for line in (folder / "heldout.jsonl").read_text().splitlines()]
    assert [int(one["id"]) for one in lines] == [n for run in heldout_runs_of(splits, fraction) for n in run]
    return variant, splits, found


def heldout_runs_of(splits, fraction):
    return heldout_runs(len(splits[0]) + len(splits[1]), fraction, "")


def expected(documents, fraction=0.1):
    runs = heldout_runs(len(documents), fraction, "")
    held = {number for run in runs for number in run}
    whole = [one.tolist() for one in documents]
    return [[one for n, one in enumerate(whole) if (n in held) == is_held] for is_held in (False, True)]


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
@pytest.mark.parametrize("modes", [False, True])
def test_megatron_in_place(tmp_path, dtype, modes):
    said = megatron(tmp_path, closed(DOCUMENTS), dtype, modes)
    variant, splits, found = made(said, tmp_path)
    assert splits == expected(closed(DOCUMENTS)) and isinstance(found, InPlace)
    assert {one.file for one in variant.extents} == {str(tmp_path / "web.bin")} and variant.dtype == dtype
    assert not list((tmp_path / "pool" / "s@L1").glob("train*.bin")), "nothing is copied"


def test_megatron_without_ends_gets_them(tmp_path):
    mixed = [np.array([*one, END] if n % 2 else one) for n, one in enumerate(DOCUMENTS)]
    variant, splits, found = made(megatron(tmp_path, mixed), tmp_path, shard_tokens=100)
    assert isinstance(found, Documents) and splits == expected(closed(DOCUMENTS))
    assert len(variant.extents) > 1 and variant.extents[0].file == "train.00000.bin"


def test_in_place_and_copied_have_one_digest(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, _, _ = made(megatron(tmp_path / "a", closed(DOCUMENTS)), tmp_path / "a")
    second, _, _ = made(megatron(tmp_path / "b", [np.array(one) for one in DOCUMENTS]), tmp_path / "b")
    assert first.digest == second.digest and first.bytes == second.bytes


@settings(max_examples=20)
@given(
    st.lists(st.lists(st.integers(0, END - 1), max_size=9), min_size=2, max_size=40),
    st.integers(1, 4),
    st.floats(0.01, 0.6),
    st.booleans(),
)
def test_flat_files_in_place(tmp_path_factory, documents, files, fraction, headers):
    """Wherever the files cut the stream; numpy's header or none."""
    folder = tmp_path_factory.mktemp("flat")
    stream = np.concatenate(closed(documents)).astype("<u2")
    for number, part in enumerate(np.array_split(stream, files)):
        path = folder / f"{number}.npy"
        if headers:
            np.save(path, part)
        elif len(part):
            part.tofile(path)
    _, splits, _ = made({"flat": {"files": ["*.npy"]}}, folder, fraction)
    assert splits == expected(closed(documents), fraction)


def test_large_vocabularies_and_open_ends(tmp_path):
    documents = [*closed(DOCUMENTS[:9]), np.array([5, 6])]
    documents = [np.where(one == END, 69_999, one) for one in documents]
    np.concatenate(documents).astype("<u4").tofile(tmp_path / "a.bin")
    variant, splits, _ = made({"flat": {"files": ["a.bin"]}}, tmp_path, 0.2, size=70_000)
    assert variant.dtype == "uint32" and splits == expected(documents, 0.2)


def test_held_out_are_runs_all_over():
    for documents in (2, 3, 17, 40, 1000, 12_345):
        for fraction in (0.001, 0.03, 0.3, 0.9):
            runs = heldout_runs(documents, fraction, "")
            numbers = [n for run in runs for n in run]
            assert len(set(numbers)) == len(numbers) == min(max(1, round(documents * fraction)), documents - 1)
            assert numbers == sorted(numbers) and numbers[0] >= 0 and numbers[-1] < documents and len(runs) <= 16
    assert heldout_runs(5, 0, "") == []


def test_hugging_face_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    whole = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"input_ids": DOCUMENTS})})
    whole.save_to_disk(str(tmp_path / "hf"))
    said = {"huggingface": {"path": "hf"}}
    assert made(said, tmp_path)[1] == expected(closed(DOCUMENTS))
    stream = np.concatenate(closed(DOCUMENTS))[:1000].reshape(-1, 50)
    datasets.Dataset.from_dict({"ids": stream.tolist()}).save_to_disk(str(tmp_path / "packed"))
    said = {"huggingface": {"path": "packed", "column": "ids"}}
    with pytest.raises(UserError, match=rf"row 0 has the end of text \({END}\) as its token .* say packed: true"):
        made(said, tmp_path)
    said["huggingface"]["packed"] = True
    cut = np.split(stream.ravel(), np.flatnonzero(stream.ravel() == END) + 1)
    assert made(said, tmp_path)[1] == expected(
        [np.append(one, END) if one[-1:] != END else one for one in cut if len(one)]
    )


@pytest.mark.slow
def test_formats_by_their_own_libraries(tmp_path):
    streaming = pytest.importorskip("streaming")
    with streaming.MDSWriter(out=str(tmp_path / "mds"), columns={"tokens": "ndarray:int32"}, size_limit=500) as out:
        for one in DOCUMENTS:
            out.write({"tokens": np.array(one, dtype=np.int32)})
    assert made({"mds": {"path": "mds"}}, tmp_path)[1] == expected(closed(DOCUMENTS))
    megatron_core = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    builder = megatron_core.IndexedDatasetBuilder(str(tmp_path / "real.bin"), dtype=np.int32)
    for one in closed(DOCUMENTS):
        builder.add_document(importlib.import_module("torch").from_numpy(one), [len(one)])
    builder.finalize(str(tmp_path / "real.idx"))
    _, splits, found = made({"megatron": {"prefix": "real"}}, tmp_path)
    assert splits == expected(closed(DOCUMENTS)) and isinstance(found, InPlace)


@pytest.mark.slow
def test_litdata_rows(tmp_path):
    litdata = pytest.importorskip("litdata")
    litdata.optimize(_row, DOCUMENTS, str(tmp_path / "lit"), chunk_bytes=2000, num_workers=1)
    assert made({"litdata": {"path": "lit"}}, tmp_path)[1] == expected(closed(DOCUMENTS))
    for kind in (np.int32, np.uint16):
        row, tokens = functools.partial(_tensor, kind), litdata.TokensLoader(block_size=16)
        folder = tmp_path / kind.__name__
        litdata.optimize(row, DOCUMENTS, str(folder), chunk_size=400, num_workers=1, item_loader=tokens)
        assert made({"litdata": {"path": kind.__name__}}, tmp_path)[1] == expected(closed(DOCUMENTS))
    (chunk, *_) = sorted((tmp_path / "int32").glob("*.bin"))
    chunk.write_bytes(chunk.read_bytes()[:-4])
    with pytest.raises(UserError, match="is damaged, or cut short"):
        made({"litdata": {"path": "int32"}}, tmp_path)


def _tensor(kind, document):
    return importlib.import_module("torch").from_numpy(np.array(document, dtype=kind))


def _row(document):
    return np.array(document, dtype=np.int32)


@pytest.mark.parametrize("package, said", [("litdata", "litdata"), ("streaming", "mds"), ("datasets", "huggingface")])
def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch, package, said):
    real = importlib.import_module

    def missing(name, *rest):
        if name == package:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    named = {"streaming": "mosaicml-streaming"}.get(package, package)
    with pytest.raises(UserError, match=f"pool.yaml: x: needs the package {named}"):
        made({said: {"path": "x"}}, tmp_path)


def _damaged(tmp_path, name):
    """A mistake, what is said of it, and the source."""
    said = megatron(tmp_path, closed(DOCUMENTS))
    index, tokens = tmp_path / "web.idx", tmp_path / "web.bin"
    content = bytearray(index.read_bytes())
    if name == "magic":
        index.write_bytes(b"MMIDIDY" + content[7:])
        return said, r"web.idx does not begin with MMIDIDX"
    if name == "version":
        content[9] = 2
        index.write_bytes(content)
        return said, r"version 2; accepted is 1"
    if name == "type":
        content[17] = 6
        index.write_bytes(content)
        return said, r"tokens of type 6; accepted are 4 \(int32\)"
    if name == "index cut":
        index.write_bytes(content[:-3])
        return said, r"web.idx has .* bytes where 90 sequences take"
    if name == "head cut":
        index.write_bytes(content[:20])
        return said, r"ends within its header"
    if name == "bin cut":
        tokens.write_bytes(tokens.read_bytes()[:-2])
        return said, r"web.bin has .* bytes where its index says"
    if name == "lengths":
        content[34] += 1
        index.write_bytes(content)
        return said, r"do not lie end to end"
    if name == "no idx":
        index.unlink()
        return said, r"web.idx is not there"
    if name == "empty":
        tokens.write_bytes(b"")
        return said, r"web.bin is empty"
    if name == "folder":
        return {"flat": {"files": ["."]}}, r"is a folder; a file is accepted"
    if name == "no file":
        return {"flat": {"files": ["*.nope"]}}, r"no file is '\*.nope'"
    if name == "odd":
        (tmp_path / "odd.bin").write_bytes(b"123")
        return {"flat": {"files": ["odd.bin"]}}, r"has 3 bytes, no multiple of the 2 of uint16"
    if name == "floats":
        np.save(tmp_path / "f.npy", np.zeros(3))
        return {"flat": {"files": ["f.npy"]}}, r"array of float64; accepted are uint16"
    if name == "npy cut":
        np.save(tmp_path / "f.npy", np.zeros(30, dtype=np.uint16))
        (tmp_path / "f.npy").write_bytes((tmp_path / "f.npy").read_bytes()[:-1])
        return {"flat": {"files": ["f.npy"]}}, r"187 bytes where its header says 188"
    if name == "ids":
        (tmp_path / "i.bin").write_bytes(np.array([1, 2, END, SIZE, 3, END], dtype="<u2").tobytes())
        return {
            "flat": {"files": ["i.bin"]}
        }, r"id 300 in .*i.bin at token 3, but the tokenizer \(\w+\) has ids below 300"
    if name == "negative":
        (tmp_path / "i.bin").write_bytes(np.array([1, END, -1, END], dtype="<i4").tobytes())
        return {"flat": {"files": ["i.bin"], "dtype": "int32"}}, r"id -1 in"
    if name == "no end":
        (tmp_path / "i.bin").write_bytes(np.arange(20, dtype="<u2").tobytes())
        return {"flat": {"files": ["i.bin"]}}, r"1 document \(nothing in it ends a text\)"
    if name == "format":
        return {"megatrom": {"prefix": "web"}}, r"unknown format 'megatrom'; nearest: megatron"
    if name == "parameter":
        return {"megatron": {"prefx": "web"}}, r"megatron: prefx: unknown key; nearest: prefix"
    if name == "not saved":
        (tmp_path / "d").mkdir()
        return {"huggingface": {"path": "d"}}, r"is no data set that datasets saved"
    raise AssertionError(name)


MISTAKES = (
    *("magic", "version", "type", "index cut", "head cut", "bin cut", "lengths", "no idx", "empty", "folder"),
    *("no file", "odd", "floats", "npy cut", "ids", "negative", "no end", "format", "parameter", "not saved"),
)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, name):
    said, message = _damaged(tmp_path, name)
    with pytest.raises(UserError, match=message) as caught:
        made(said, tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("pool.yaml: x")
    assert sorted(path.name for path in (tmp_path / "pool").iterdir()) == ["tokenizer.json"]


def test_a_file_that_changed_is_not_read(tmp_path):
    variant, _, _ = made(megatron(tmp_path, closed(DOCUMENTS)), tmp_path)
    with (tmp_path / "web.bin").open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(UserError, match=r"web.bin: .* bytes where the card says"):
        Shard(tmp_path / "pool" / "s@L1", "train", variant)
