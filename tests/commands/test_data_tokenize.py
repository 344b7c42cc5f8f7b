"""``data tokenize`` and pools of others' tokens: what is built is what a node then reads."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from davinci.__main__ import main
from davinci.data.cards import read_card
from davinci.data.shards import Shard
from davinci.data.tokenizer import Encoder
from davinci.store import Store

TEXTS = [f"Document {n} says that {n} and {n + 1} make {2 * n + 1}.\nNothing else.\n" * (1 + n % 3) for n in range(80)]


@pytest.fixture
def files(tmp_path):
    pq.write_table(pa.table({"body": TEXTS}), tmp_path / "web.parquet")
    lines = "".join(json.dumps({"text": f"def f{n}():\n    return {n}\n"}) + "\n" for n in range(60))
    (tmp_path / "code.jsonl").write_text(lines)
    return tmp_path


def run(files, *arguments):
    places = ["--pool", "mine", "--config-dir", str(files / "conf"), "--store", str(files / "store"), "--workers", "1"]
    return main(["data", "tokenize", *map(str, arguments), *places])


def written(files, source, depth):
    """The training documents of a source, as text."""
    store = Store(files / "store")
    card = read_card(store, "mine")
    folder = store.pool("mine")
    tokens = Shard(folder / f"{source}@{depth}", "train", card.sources[source].variants[depth]).beginning(10**9)
    ends = np.flatnonzero(tokens == card.tokenizer.end_of_text) + 1
    encoder = Encoder(card.tokenizer, folder)
    return [encoder.decode(one) for one in np.split(tokens, ends)[:-1]]


def test_a_pool_of_ones_own_files_and_another_source(files, capsys):
    web = files / "web.parquet"
    assert run(files, web, "--text", "body", "--tokenizer", "train:262", "--depth", "L2") == 0
    said = capsys.readouterr().out
    lines = yaml.safe_load(said[said.index("common:") :])["common"]
    assert lines[:2] == ["pool=mine", "depth=native"] and "mixture@curriculum.stages.stable.mixture=mine" in lines
    found = written(files, "web", "L2")
    assert set(found) <= set(TEXTS) and 60 < len(found) < 80
    pool = files / "conf" / "pool" / "mine.yaml"
    pool.write_text("# mine\n" + pool.read_text())
    assert run(files, files / "code.jsonl", "--domain", "code") == 0
    assert pool.read_text().startswith("# mine\n") and written(files, "code", "L1")[0].startswith("def f")
    mixture = yaml.safe_load((files / "conf" / "mixture" / "mine.yaml").read_text())
    assert set(mixture["domains"]) == {"code", "general"} and sum(mixture["domains"].values()) == pytest.approx(1)
    assert main(["data", "verify", "mine", "--store", str(files / "store")]) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["web.csv"], "web.csv is of no format that is read here; accepted are .parquet"),
        (["none.jsonl"], "none.jsonl is not there"),
        (["web/*.parquet"], "web/*.parquet is not there"),
        (["web.parquet", "code.jsonl"], "of one format they must be"),
        (["code.jsonl"], "--tokenizer: pool mine is new"),
        (["code.jsonl", "--tokenizer", "none.json"], "none.json' is no file; accepted are qwen2"),
        (["code.jsonl", "--tokenizer", "train:100000"], "the pool's text yields only"),
        (["web.parquet", "--tokenizer", "train:262"], "no column text"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_pool(files, capsys, arguments, message, monkeypatch):
    monkeypatch.chdir(files)
    assert run(files, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(files.glob("conf/*/mine.yaml"))


def test_a_second_source_keeps_what_is_there(files, capsys):
    assert run(files, files / "code.jsonl", "--tokenizer", "train:262") == 0
    before = (files / "conf" / "pool" / "mine.yaml").read_text()
    assert run(files, files / "web.parquet", "--text", "body", "--source", "code") == 2
    assert "has one of that name already" in capsys.readouterr().err
    assert run(files, files / "web.parquet", "--text", "body", "--tokenizer", "qwen2") == 2
    assert "a pool has one tokenizer" in capsys.readouterr().err
    assert run(files, files / "web.parquet", "--text", "nobody") == 2
    assert (files / "conf" / "pool" / "mine.yaml").read_text() == before


def test_tokens_of_another_program_at_two_depths(files, capsys):
    """Their tokenizer brought, their tokens read in place, one line for what does not fit."""
    assert run(files, files / "web.parquet", "--text", "body", "--tokenizer", "train:262") == 0
    tokenizer = files / "store" / "pools" / "mine" / "tokenizer.json"
    (files / "theirs.json").write_bytes(tokenizer.read_bytes())
    card = read_card(Store(files / "store"), "mine").tokenizer
    ids = Encoder(card, tokenizer.parent).encode(TEXTS)
    np.concatenate([np.append(one, 0) for one in ids]).astype("<u2").tofile(files / "all.bin")
    np.concatenate([np.append(one, 0) for one in ids[::2]]).astype("<i4").tofile(files / "some.bin")
    sources = {
        "web": {
            "domain": "general",
            "depths": ["L1", "L3"],
            "tokens_from": {
                "L1": {"flat": {"files": ["all.bin"]}},
                "L3": {"flat": {"files": ["some.bin"], "dtype": "int32"}},
            },
        }
    }
    pool = files / "mine.yaml"
    whole = {"name": "mine", "tokenizer": "theirs.json", "vocab_size": 320, "sources": sources}
    pool.write_text(yaml.safe_dump(whole))
    build = ["data", "build", str(pool), "--store", str(files / "store"), "--workers", "1"]
    assert main(build) == 0
    found = written(files, "web", "L1")
    assert set(found) <= set(TEXTS) and len(found) == 78
    assert set(written(files, "web", "L3")) <= set(TEXTS[::2])
    capsys.readouterr()
    assert main(build) == 0 and "is there" in capsys.readouterr().out
    assert main(["data", "verify", "mine", "--store", str(files / "store")]) == 0
    for change, message in (
        ({"tokenizer": "mine"}, "would be trained on the pool, which has no text"),
        ({"vocab_size": 200}, "vocab_size: 200 is smaller than the 262 of tokenizer theirs.json"),
        ({"sources": {"web": sources["web"] | {"depths": ["L1"]}}}, "tokens_from: is of L1, L3, depths are L1"),
        ({"sources": {"web": sources["web"] | {"chain": ["x"]}}}, "chain and tokens_from: a source has one of the two"),
    ):
        pool.write_text(yaml.safe_dump(whole | change))
        assert main(build) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
