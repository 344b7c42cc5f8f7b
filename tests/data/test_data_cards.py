"""The data card: sizes, which levels hold the same documents, what steps dropped and why; as JSON and on a screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from davinci.__main__ import main
from davinci.config import parse
from davinci.data.cards import PoolCard, read_card
from davinci.data.contamination import read_items
from davinci.data.data_cards import DataCard, data_cards, steps
from davinci.store import Store, write_json

SCHEMA = Path(__file__).parents[2] / "docs" / "data_card.schema.json"
READ = {"operation": "jsonl", "level": "L0", "version": 1, "parameters": {"paths": ["a"]}, "documents_in": 0,
        "documents": 12, "bytes_in": 0, "bytes": 900, "dropped": {}, "counted": {"empty rows": 2},
        "samples": {}}  # fmt: skip
RULES = {"operation": "rules", "level": "L2", "version": 3, "parameters": {}, "documents_in": 12, "documents": 9,
         "bytes_in": 900, "bytes": 700, "dropped": {"too short": 2, "<script>": 1}, "counted": {},
         "samples": {"too short": [{"id": "a:1", "text": "hi <b>", "origin": {"file": "a", "line": 1}}]},
         "report": {"threshold": 0.5}}  # fmt: skip
REFINED = READ | {"operation": "refined_by_rules", "level": "L4", "documents_in": 9, "documents": 9, "bytes": 650}


def variant(digest: str, documents: str | None, chain: list[dict[str, Any]]) -> dict[str, Any]:
    sizes = {"tokens": 100, "documents": 9, "bytes": 700}
    held = {"heldout_tokens": 10, "heldout_documents": 1, "heldout_bytes": 70}
    return {"digest": digest, **sizes, **held, "chain": chain, "documents_digest": documents}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    levels = {"L0": variant("a0", "d0", [READ]), "L2": variant("a2", "d2", [READ, RULES]),
              "L4": variant("a4", "d2", [READ, RULES, REFINED])}  # fmt: skip
    prose = {"domain": "general", "licence": {"spdx": "MIT", "note": "a note", "files": {}}, "archive": {},
             "provenance": {"files": 1}, "variants": levels}  # fmt: skip
    old = prose | {
        "domain": "code",
        "variants": {"L1": variant("b", None, [{"level": "L1", "operation": "x", "kept": 3}])},
    }
    tokenizer = {"file": "tokenizer.json", "digest": "t", "vocab_size": 64}
    write_json(
        made.pool("mine") / "card.json", {"name": "mine", "tokenizer": tokenizer, "sources": {"p": prose, "c": old}}
    )
    return made


def card(store: Store) -> PoolCard:
    found = read_card(store, "mine")
    assert found is not None
    return found


def test_a_card_says_what_is_at_each_level_and_why_documents_went(store: Store) -> None:
    code, prose = data_cards(card(store))
    assert (code.source, prose.source) == ("c", "p") and prose.licence["spdx"] == "MIT"
    assert [(one.level, one.same_documents) for one in prose.levels] == [("L0", ()), ("L2", ("L4",)), ("L4", ("L2",))]
    assert [step.text for step in prose.levels[2].chain] == [
        "L0 jsonl: 12 documents; empty rows 2",
        "L2 rules: 9 documents; dropped: <script> 1, too short 2",
        "L4 refined_by_rules: 9 documents; empty rows 2",
    ]
    assert prose.levels[1].chain[1].samples["too short"][0].origin == {"file": "a", "line": 1}
    assert prose.origin == {"files": 1}
    assert code.levels[0].same_documents == () and code.levels[0].chain[0].report == {"kept": 3}, "an old card's step"


def test_json_is_as_the_schema_says(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == DataCard.model_json_schema()
    assert main(["data", "card", "mine", "--source", "p", "--json", "--store", str(store.root)]) == 0
    (told,) = json.loads(capsys.readouterr().out)["cards"]
    assert parse(DataCard, told) == data_cards(card(store), ["p"])[0]


def test_the_screen_shows_counts_reasons_and_samples(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "card", "mine", "--store", str(store.root)]) == 0
    said = capsys.readouterr().out
    assert "p: general, pool mine, licence MIT (a note)" in said and "the documents of L4" in said
    assert "L2 rules: 9 documents; dropped: <script> 1, too short 2" in said and "too short: a:1: hi <b>" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["card", "mien"], "pool mien is not built"),
        (["verify", "mien"], "nearest: mine"),
        (["verify", "embeded"], "nearest: embedded"),
        (["verify", "embedded"], "run: python -m davinci data build embedded"),
        (["card", "mine", "--source", "pp"], "--source pp: pool mine has no such source; nearest: p"),
        (["contamination", "mine", "--suite", "no.jsonl"], "no.jsonl: no evaluation items are there"),
        (["contamination", "mine", "--suite", "no.jsonl", "-n", "0"], "-n 0 --share 0: n is 1 or more"),
        (
            ["contamination", "mine", "--suite", "no.jsonl", "--depth", "l3"],
            "--depth l3: pool mine was not built at it",
        ),
        (["contamination", "other", "--suite", "no.jsonl"], "pool other is not built"),
        (["items", "quiz.jsonl"], "quiz.jsonl: is a file of items already"),
    ],
)
def test_mistakes_are_one_line(store: Store, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words, "--store", str(store.root)]) != 0
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_steps_of_any_card_can_be_read() -> None:
    assert steps([]) == () and steps([{"level": "L1", "operation": "x"}])[0].documents is None


def test_items_may_lie_in_several_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
    assert [(one.benchmark, one.id, one.text) for one in read_items(tmp_path)] == [("a", "1", "a"), ("b", "1", "b")]
