"""Documents to shards and back: whatever the shard size, the vocabulary and the number of workers."""

import argparse
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_files import write_bytes_tokenizer

from davinci.commands import data_verify
from davinci.config import parse
from davinci.data import checksums
from davinci.data.cards import VariantCard
from davinci.data.document_files import write_documents
from davinci.data.documents import Document
from davinci.data.shards import Shard
from davinci.data.verify import verify
from davinci.data.writing import read_variant, write_variant
from davinci.errors import UserError
from davinci.store import Store, write_json

TEXTS = st.lists(
    st.tuples(st.text(max_size=12), st.text(st.characters(codec="utf-8"), max_size=30)), min_size=1, max_size=25
)


def _documents(rows):
    return [Document(f"d{n}", f"k{n}", question + rest, question) for n, (question, rest) in enumerate(rows)]


def _write(folder, documents, *, fraction=0.3, parts=2, size=257, key="k", **options):
    card = write_bytes_tokenizer(folder.parent, size)
    paths = []
    for number in range(parts):
        path = folder.parent / "parts" / f"{number}.parquet"
        write_documents(path, documents[number * len(documents) // parts : (number + 1) * len(documents) // parts])
        paths.append(path)
    chain = [{"operation": "test"}]
    return _card(write_variant(folder, paths, fraction, card, key, chain, **options)), card


def _card(data):
    return parse(VariantCard, data, where=lambda key: "test")


def _plain(documents, end, fraction=0.3):
    """Tokens and question marks of the training split, laid end to end."""
    from tokenizers import pre_tokenizers

    from davinci.data.tokenizer import byte_names

    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = [names.index(name) for name in byte_names()]
    tokens, marks = [], []
    for one in documents:
        if not one.is_heldout(fraction):
            question, rest = one.question.encode(), one.text.removeprefix(one.question).encode()
            tokens += [ids[byte] for byte in question + rest] + [end]
            marks += [True] * len(question) + [False] * (len(rest) + 1)
    return np.array(tokens, dtype=np.int64), np.array(marks, dtype=np.bool_)


@settings(max_examples=15)
@given(TEXTS, st.integers(17, 400), st.integers(1, 40), st.data())
def test_sequences_are_those_of_the_plain_concatenation(tmp_path_factory, rows, shard, length, data):
    _check_sequences(tmp_path_factory, rows, shard, 257, length, data.draw)


def test_a_vocabulary_beyond_16_bits(tmp_path_factory):
    rows = [("", "<|endoftext|> in a text is text"), ("Why? ", "Because."), ("", "語 and é")]
    _check_sequences(tmp_path_factory, rows, 20, 70_000, 7, lambda _: [2, 0, 1])


def _check_sequences(tmp_path_factory, rows, shard, size, length, draw):
    folder = tmp_path_factory.mktemp("pool") / "s@L1"
    documents = _documents(rows)
    card, tokenizer = _write(folder, documents, size=size, shard_tokens=shard)
    tokens, marks = _plain(documents, tokenizer.end_of_text)
    assert card.tokens == len(tokens) and card.dtype == ("uint16" if size == 257 else "uint32")
    read = Shard(folder, "train", card)
    count = read.sequences(length)
    assert count == max(0, len(tokens) - 1) // length
    chunks = np.array(draw(st.lists(st.integers(0, max(0, count - 1)), max_size=8)) if count else [], dtype=int)
    got, asks = read.read(chunks, length)
    places = chunks[:, None] * length + np.arange(length + 1)
    assert (got == tokens[places]).all() and (asks == marks[places[:, 1:]]).all()
    assert read.beginning(50).tolist() == tokens[:50].tolist()
    files = sorted(path.name for path in folder.glob("train.*bin") if "question" not in path.name)
    whole = len(tokens) <= shard
    expected = ["train.bin"] if whole else [f"train.{n:05d}.bin" for n in range(-(-len(tokens) // shard))]
    assert files == expected and all((folder / one).stat().st_size <= shard * read_width(card) for one in files)


def read_width(card):
    return np.dtype(card.dtype).itemsize


@pytest.fixture
def documents():
    return _documents([(f"Q{n}? " * (n % 3), f"answer number {n} " * (n % 7)) for n in range(60)])


def test_neither_shards_nor_workers_nor_parts_change_the_content(tmp_path, documents):
    cards = {}
    for name, options in {
        "one": {"parts": 1},
        "parts": {"parts": 4, "shard_tokens": 100},
        "workers": {"parts": 4, "workers": 2, "shard_tokens": 333},
    }.items():
        cards[name], _ = _write(tmp_path / name / "s@L1", documents, **options)
    plain = {name: card.model_copy(update={"extents": (), "heldout_extents": ()}) for name, card in cards.items()}
    assert plain["one"] == plain["parts"] == plain["workers"]
    assert len(cards["parts"].extents) > len(cards["workers"].extents) > 1
    joined = b"".join((tmp_path / "parts" / "s@L1" / one.file).read_bytes() for one in cards["parts"].extents)
    assert joined == (tmp_path / "one" / "s@L1" / "train.bin").read_bytes()
    for name in ("train.index.npy", "heldout.index.npy", "heldout.jsonl"):
        assert len({(tmp_path / one / "s@L1" / name).read_bytes() for one in cards}) == 1
    starts = np.load(tmp_path / "one" / "s@L1" / "train.index.npy")
    assert starts.dtype == np.uint64 and len(starts) == cards["one"].documents
    assert (np.diff(starts.astype(np.int64)) > 0).all()


def test_of_equal_heldout_texts_the_first_stays_where_the_last_stood(tmp_path):
    texts = ["same", "other", "same", "third"]
    documents = [Document(f"d{n}", f"k{n}", text, fields={"n": n}) for n, text in enumerate(texts)]
    card, _ = _write(tmp_path / "s@L1", documents, fraction=1.0)
    lines = [json.loads(line) for line in (tmp_path / "s@L1" / "heldout.jsonl").read_text().splitlines()]
    assert [(one["id"], one["n"]) for one in lines] == [("d1", 1), ("d0", 0), ("d3", 3)]
    assert card.heldout_documents == 3 and card.heldout_bytes == 14 and card.documents == 0


def test_a_failure_leaves_nothing(tmp_path, documents):
    _write(tmp_path / "s@L1", documents)
    (tmp_path / "parts" / "1.parquet").write_bytes(b"PAR1 no")
    _, tokenizer = _write(tmp_path / "other@L1", documents, parts=1)
    with pytest.raises(Exception, match="arquet"):
        write_variant(tmp_path / "new@L1", [tmp_path / "parts" / "1.parquet"], 0.1, tokenizer, "k", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other@L1", "parts", "s@L1", "tokenizer.json"]


def test_another_tokenizer_is_refused(tmp_path, documents):
    _, tokenizer = _write(tmp_path / "s@L1", documents)
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text() + " ")
    with pytest.raises(
        UserError, match=f"SHA-256 [0-9a-f]{{12}}, but the pool's shards are of tokenizer {tokenizer.digest[:12]}"
    ):
        write_variant(tmp_path / "s@L1", [], 0.1, tokenizer, "k", [])


@pytest.fixture
def pool(tmp_path, documents):
    store = Store(tmp_path / "store")
    folder = store.pool("p")
    card, tokenizer = _write(folder / "s@L1", documents, shard_tokens=300)
    shutil.rmtree(folder / "parts")
    source = {"domain": "qa", "licence": {}, "archive": {}, "variants": {"L1": card.model_dump(mode="json")}}
    write_json(folder / "card.json", {"name": "p", "tokenizer": tokenizer.model_dump(), "sources": {"s": source}})
    return store


def test_verify_passes_what_was_written(pool):
    read = []
    assert verify("p", pool, read.append) == []
    folder = pool.pool("p")
    kept = {
        str(path) for path in folder.rglob("*") if path.is_file() and path.name not in ("card.json", "variant.json")
    }
    assert set(read) == kept


@pytest.mark.parametrize("name", ["train.00001.bin", "train.question.00000.bin", "train.index.npy", "heldout.jsonl"])
def test_verify_names_a_flipped_bit(pool, name, capsys):
    path = pool.pool("p") / "s@L1" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert data_verify.run(argparse.Namespace(pool="p"), pool) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{path}: SHA-256 ") and said[-1].endswith("1 wrong")


def test_a_flipped_bit_is_found_where_a_shard_is_opened(pool, monkeypatch):
    folder = pool.pool("p") / "s@L1"
    card = _card(read_variant(folder, "k"))
    path = folder / card.extents[1].file
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    Shard(folder, "heldout", card)
    with pytest.raises(UserError, match=r"train.00001.bin: SHA-256 \w+ where \w+ was written.*; build the pool again"):
        Shard(folder, "train", card)
    monkeypatch.setattr(checksums, "SOON", 100)  # more takes too long, and is for `data verify`
    Shard(folder, "train", card)


def test_a_truncated_shard_is_found_cheaply_and_by_checksum(pool):
    folder = pool.pool("p") / "s@L1"
    card = _card(read_variant(folder, "k"))
    path = folder / card.extents[1].file
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"train.00001.bin: 598 bytes where the card says 600; build the pool again"):
        Shard(folder, "train", card)
    assert [line.partition(":")[0] for line in verify("p", pool, str)] == [str(path)]
    path.unlink()
    with pytest.raises(UserError, match=r"train.00001.bin: missing"):
        Shard(folder, "train", card)
    assert verify("p", pool, str) == [f"{path}: missing"]


def test_verify_of_other_damage(pool):
    folder = pool.pool("p")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "s@L1" / "heldout.index.npy").unlink()
    assert len(verify("p", pool, str)) == 2
    (folder / "s@L1" / "variant.json").unlink()
    assert "variant.json: missing, or without checksums" in verify("p", pool, str)[-1]
    with pytest.raises(UserError, match="pool q is not built"):
        verify("q", pool, str)
