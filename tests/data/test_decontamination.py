"""Evaluation items are found where they stand in documents, near misses are not; and what is found is taken out."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davinci.data.build import Request, build
from davinci.data.cards import read_card
from davinci.data.contamination import BenchmarkItem, Items, Report, items_digest, read_items
from davinci.data.documents import Document
from davinci.data.l2_rules.decontamination import Decontaminated
from davinci.data.operations import Places
from davinci.data.pool_files import read_pool
from davinci.data.tally import Tally
from davinci.errors import UserError
from davinci.store import Store

LONG = " ".join(f"word{n}" for n in range(30))
QUESTION = BenchmarkItem("quiz", "7", f"Question: {LONG}? Answer: forty two")
NOISE = " ".join(f"filler{n}" for n in range(200))


def found(items: Items, *texts: str) -> list[list[int]]:
    return [[hit.item for hit in hits] for hits in items.hits([text.encode() for text in texts])]


def row(begin: int, length: int) -> str:
    return " ".join(f"word{n}" for n in range(begin, begin + length))


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not() -> None:
    items = Items([QUESTION])
    texts = [f"{NOISE} {row(5, 13)} {NOISE}", f"{NOISE} {row(5, 12)} {NOISE}", f"{row(2, 7)} x {row(9, 7)}", NOISE]
    assert found(items, *texts) == [[0], [], [], []]
    assert found(Items([QUESTION], n=8), f"a {row(5, 8)} b", f"a {row(5, 7)} b") == [[0], []]


def test_case_punctuation_and_blanks_do_not_hide_an_item() -> None:
    shown = "“" + row(0, 6).upper() + "” —\n\t" + row(6, 4) + "…; (" + row(10, 3) + ")"
    (hit,) = Items([QUESTION]).hits([shown.encode()])[0]
    assert (hit.begin, hit.end) == (3, len(shown.encode()) - 1) and hit.share == pytest.approx(1 / 22)


def test_a_row_that_runs_over_two_documents_stands_in_none() -> None:
    assert found(Items([QUESTION]), f"a {row(0, 7)}", f"{row(7, 7)} b") == [[], []]


def test_short_items_are_found_whole_and_the_shortest_not_looked_for() -> None:
    items = Items([BenchmarkItem("a", "0", row(0, 9)), BenchmarkItem("a", "1", "what is 2 + 2? 4")])
    assert items.sizes.tolist() == [1, 0]
    assert found(items, f"x {row(0, 9)} y", f"x {row(0, 8)} y", "what is 2 + 2? 4") == [[0], [], []]


def test_a_share_asks_for_more_than_one_row() -> None:
    text = f"{NOISE} {row(0, 24)}"  # 12 of the 22 rows of the item's 34 words
    (hit,) = Items([QUESTION], share=0.5).hits([text.encode()])[0]
    assert hit.share == pytest.approx(12 / 22)
    assert found(Items([QUESTION], share=0.6), text) == [[]]
    assert found(Items([QUESTION], share=0.5), f"{row(0, 13)} and again {row(0, 13)}") == [[]], "a row counts once"


def test_a_document_longer_than_a_batch_is_looked_through_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davinci.data.contamination._BATCH", 1000)
    monkeypatch.setattr("davinci.data.contamination._OVERLAP", 300)
    items = Items([QUESTION])
    for place in range(500, 2600, 137):
        text = ("pad " * 700)[:place] + f" {row(3, 13)} " + "pad " * 300
        ((hit,),) = items.hits([text.encode()])
        assert text[hit.begin : hit.end] == row(3, 13)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 5), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_what_is_found_is_what_plain_python_finds(seed: int, n: int, share: float) -> None:
    random = Random(seed)
    texts = [[random.choice("abc") for _ in range(random.randrange(0, 40))] for _ in range(8)]
    items = [BenchmarkItem("b", str(at), " ".join(random.choice("abc") for _ in range(random.randrange(n, 12))))
             for at in range(4)]  # fmt: skip

    def rows(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}

    wanted = [rows(item.text.split()) for item in items]
    expected = [
        [at for at, own in enumerate(wanted) if own & rows(text) and len(own & rows(text)) / len(own) >= share]
        for text in texts
    ]
    assert found(Items(items, n=n, share=share), *(", ".join(text) for text in texts)) == expected


def places(tmp_path: Path) -> Places:
    folders = {name: tmp_path / name for name in ("step", "cache", "archives", "root")}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    return Places(**folders)


def document(name: str, text: str) -> Document:
    return Document(name, name, text)


def test_the_operation_drops_what_holds_an_item_and_says_of_which_benchmark(tmp_path: Path) -> None:
    where = places(tmp_path)
    (where.root / "quiz.jsonl").write_text(json.dumps({"id": 7, "text": QUESTION.text}) + "\n")
    step = Decontaminated(suite="quiz.jsonl")
    located = step.located(where)
    assert (
        located.digest == items_digest(where.root / "quiz.jsonl") and "suite" not in located.described()["parameters"]
    )
    tally = Tally()
    documents = [document("clean", NOISE), document("dirty", f"{NOISE} {row(1, 14)}"), document("near", row(1, 12))]
    kept = list(located.run(iter(documents), tally, where))
    assert [one.id for one in kept] == ["clean", "near"]
    told = tally.to_json()
    assert told["dropped"] == {"holds quiz": 1} and told["samples"]["holds quiz"][0]["id"] == "dirty"
    assert list(Decontaminated(suite="quiz.jsonl").run(iter(documents[1:2]), Tally(), where)) == []


def test_items_of_a_suite_come_from_the_store(tmp_path: Path) -> None:
    where = places(tmp_path)
    items = tmp_path / "items"
    items.mkdir()
    (items / "paper.jsonl").write_text(json.dumps({"benchmark": "MMLU", "id": "a/1", "text": QUESTION.text}) + "\n")
    tally = Tally()
    assert list(Decontaminated(suite="paper").run(iter([document("d", QUESTION.text)]), tally, where)) == []
    assert tally.dropped == {"holds MMLU": 1}
    with pytest.raises(UserError, match="embedded.jsonl: no evaluation items are there; python -m davinci data items"):
        Decontaminated(suite="embedded").located(where)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no items"),
        ("{}\n", "quiz.jsonl:1: no item"),
        ('{"text": "a"}\n{"text": 3}\n', "quiz.jsonl:2: no item"),
        ("nonsense\n", "quiz.jsonl:1: no item"),
    ],
)
def test_a_file_that_holds_no_items_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "quiz.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_items(path)


def test_the_report_counts_items_by_benchmark_and_documents_by_source() -> None:
    items = [QUESTION, BenchmarkItem("quiz", "8", " ".join(f"other{n}" for n in range(20))),
             BenchmarkItem("sums", "0", "1 + 1 = 2")]  # fmt: skip
    report = Report(Items(items))
    texts = [NOISE, f"{NOISE} {row(2, 20)}.", QUESTION.text]
    report.add("web", "L2", (np.frombuffer(text.encode(), dtype=np.uint8) for text in texts))
    report.add("books", "L4", [np.frombuffer(NOISE.encode(), dtype=np.uint8)])
    told = report.to_json()
    assert told["benchmarks"] == {
        "quiz": {"items": 2, "too_short": 0, "hit": 1, "share": 0.5},
        "sums": {"items": 1, "too_short": 1, "hit": 0, "share": 0.0},
    }
    web, books = told["sources"]
    assert (web["source"], web["level"], web["documents"], web["hit"], web["items"]) == ("web", "L2", 3, 2, 1)
    assert web["samples"][0] == {"document": 1, "benchmark": "quiz", "item": "7", "share": 0.3636, "text": row(2, 13)}
    assert (books["documents"], books["hit"], books["samples"]) == (1, 0, [])


def test_a_chain_takes_planted_items_out_and_the_card_says_so(tmp_path: Path) -> None:
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"benchmark": "quiz", "id": 7, "text": QUESTION.text}) + "\n")
    random = Random(0)
    texts = [" ".join(random.choices(NOISE.split(), k=80)) for _ in range(40)]
    rows = [{"id": f"c{at}", "text": text} for at, text in enumerate(texts)]
    rows += [{"id": f"planted{at}", "text": f"{texts[at]} {QUESTION.text}"} for at in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    chain = [{"jsonl": {"paths": "a.jsonl", "id": "id"}}, "plain_text", {"decontaminated": {"suite": "quiz.jsonl"}}]
    source = {"domain": "general", "depths": ["L1", "L2"], "chain": chain}
    pool = {"name": "own", "tokenizer": "own", "vocab_size": 262, "sources": {"texts": source}}
    (tmp_path / "own.yaml").write_text(json.dumps(pool))
    store = Store(tmp_path / "store")
    lines: list[str] = []
    for _ in range(2):
        build(read_pool(tmp_path / "own.yaml"), store, lines.append, Request(workers=1))
    assert lines[-1].startswith("pool own is there")
    card = read_card(store, "own")
    assert card is not None
    step = card.sources["texts"].variants["L2"].chain[-1]
    assert (step["documents_in"], step["documents"], step["dropped"]) == (43, 40, {"holds quiz": 3})
    assert {one["id"] for one in step["samples"]["holds quiz"]} == {"planted0", "planted1", "planted2"}
