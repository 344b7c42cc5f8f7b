"""Levels 6 to 9: context from linked documents, items that ran, and a user's own operation; through real builds."""

import json
import sys

import pytest
import yaml

from davinci.__main__ import main
from davinci.data.cards import read_card
from davinci.data.documents import Document
from davinci.data.l6_context.linked import _cut, _links
from davinci.data.operations import Places, _read_step, depths_of, read_chain
from davinci.data.pool_files import find_pool
from davinci.data.tally import Tally
from davinci.store import Store

FRACTION = 0.03


def test_links_are_addresses_wiki_names_dotted_names_and_see_also():
    text = "As [here](https://a.org/x) and https://b.org/y. In [[Ring theory|rings]] the pkg.mod.f is; see also g, h.\n"
    assert _links(text) == ["https://a.org/x", "https://b.org/y", "Ring theory", "pkg.mod.f", "g", "h"]


def test_excerpts_end_with_a_sentence_where_they_can():
    assert _cut("One two. Three four five.\nSix", 21) == "One two."
    assert _cut("One two three", 99) == "One two three" and _cut("one two three", 9) == "one two …"


@pytest.mark.parametrize("name", ["embedded", "embedded_refined"])
def test_the_pools_of_the_repository_reach_their_depths(name):
    for source in find_pool(name).pool.sources.values():
        assert set(source.depths) <= set(depths_of(read_chain(source.chain, name)))


class OneSource:
    """A corpus of one source in two parts, as an operation sees it."""

    def __init__(self, documents):
        self.domains, self.heldout_fractions = {"notes": "science"}, {"notes": FRACTION}
        self._parts = [documents[::2], documents[1::2]]

    def map(self, survey, *of_source):
        return {"notes": [survey(iter(part), *(values["notes"] for values in of_source)) for part in self._parts]}


def quoted(documents, folder, **parameters):
    one = _read_step({"linked_context": parameters}, "c")
    places = Places(folder, folder, folder, folder)
    one.prepare(OneSource(documents), places)
    tally = Tally()
    return {doc.id: doc.text for doc in one.run(iter(documents), tally, places, "notes")}, tally


def is_heldout(key):
    return Document("x", key, "").is_heldout(FRACTION)


def test_linked_documents_are_quoted_in_front(tmp_path):
    free = [key for key in map(str, range(40)) if not is_heldout(key)]
    documents = [
        Document("m.py:pkg.mod.f", free[0], "The function f doubles. It is fast.", origin={"url": "https://a.org/f"}),
        Document("m.py:pkg.mod.g", free[1], "The function g halves what pkg.mod.f gives.\n\nSee also h."),
        Document("m.py:pkg.mod.h", free[2], "Read https://a.org/f first."),
        Document("q", free[3], "Question: f?\nAnswer: pkg.mod.f\n", "Question: f?\nAnswer:"),
    ]
    texts, tally = quoted(documents, tmp_path, excerpt=30)
    assert texts["m.py:pkg.mod.g"] == (
        "Context, pkg.mod.f: “The function f doubles.”\n\nContext, h: “Read https://a.org/f first.”\n\n"
        + documents[1].text
    )
    assert texts["m.py:pkg.mod.h"].startswith("Context, https://a.org/f: “The function f doubles.”")
    assert texts["m.py:pkg.mod.f"] == documents[0].text and texts["q"] == documents[3].text
    assert tally.counted["excerpts"] == 3 and tally.counted["documents with context"] == 2
    assert quoted(documents[::-1], tmp_path, excerpt=30)[0] == texts  # parts and order decide nothing
    fewer, _ = quoted(documents, tmp_path, most=1)
    assert fewer["m.py:pkg.mod.g"].count("Context,") == 1


def test_nothing_held_out_is_quoted_in_training_text(tmp_path):
    hidden, free = next(key for key in map(str, range(999)) if is_heldout(key)), "k"
    assert not is_heldout(free)
    documents = [
        Document("secret", hidden, "Held out text."),
        Document("near", hidden, "With [it](secret)."),
        Document("far", free, "Away from [it](secret)."),
    ]
    texts, tally = quoted(documents, tmp_path)
    assert "Held out text" not in texts["far"] and "Held out text" in texts["near"]
    assert tally.counted["links to held-out documents"] == 1


def test_items_that_do_not_give_what_they_say_go(tmp_path):
    texts = {
        "right": ">>> sorted([3, 1])\n[1, 3]\n",
        "wrong": ">>> sorted([3, 1])\n[3, 1]\n",
        "program": "```python\ndef f(): return 2\nassert f() == 2\n```\n",
        "endless": ">>> while True: pass\n>>> 1\n1\n",
        "network": ">>> import socket\n>>> socket.create_connection(('127.0.0.1', 9)) and 1\n1\n",
        "prose": "Nothing to run.\n",
    }
    documents = [Document(name, name, text) for name, text in texts.items()]
    tally = Tally()
    places = Places(tmp_path, tmp_path, tmp_path, tmp_path)
    one = _read_step({"validated_by_running": {"seconds": 2.0}}, "c")
    assert [doc.id for doc in one.run(iter(documents), tally, places)] == ["right", "program"]
    assert tally.dropped == {"run: wrong": 2, "run: time": 1, "nothing to run": 1}
    keep = _read_step({"validated_by_running": {"seconds": 2.0, "without": "keep"}}, "c")
    assert [doc.id for doc in keep.run(iter(documents[-1:]), Tally(), places)] == ["prose"]


OWN = '''
"""A user's Level 8: each document with its mirror image, as an environment and its reverse."""
from dataclasses import replace

from davinci.data.operations import DocumentOperation


class Mirrored(DocumentOperation):
    level = "L8"
    mark: str = "|"

    def apply(self, document, tally):
        if not document.text.strip():
            tally.drop(document, "nothing to mirror")
            return
        tally.count("mirrored")
        yield replace(document, text=f"{document.text.strip()} {self.mark} {document.text.strip()[::-1]}\\n")
'''


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A pool file with a chain from L0 to L8, on JSONL, with a user's own operation at its end."""
    (tmp_path / "users_own_level.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    lines = [
        {"id": f"n{one}", "text": f"Note {one} adds numbers.\n\n>>> {one}*2 + 1\n{2 * one + 1 + (one == 7)}\n"}
        for one in range(16)
    ]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    chain = [
        {"jsonl": {"paths": ["notes.jsonl"]}},
        "worked_steps",
        "linked_context",
        {"validated_by_running": {"seconds": 20.0}},
        {"users_own_level:Mirrored": {"mark": "<>"}},
    ]
    source = {"domain": "science", "depths": ["L0", "L5", "L6", "L7", "L8"], "chain": chain, "heldout_fraction": 0.2}
    made = {"name": "mine", "tokenizer": "mine", "vocab_size": 258, "sources": {"notes": source}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


def test_a_users_own_level_is_built_like_any_other(pool, tmp_path, capfd):
    assert main(["data", "build", str(pool), "--store", str(tmp_path / "store"), "--workers", "1"]) == 0
    variants = read_card(Store(tmp_path / "store"), "mine").sources["notes"].variants
    assert set(variants) == {"L0", "L5", "L6", "L7", "L8"} and len({one.digest for one in variants.values()}) > 3
    steps = variants["L8"].chain
    own = steps[-1]
    assert (
        own["level"] == "L8" and own["operation"] == "users_own_level:Mirrored" and own["counted"] == {"mirrored": 15}
    )
    assert steps[3]["dropped"] == {"run: wrong": 1} and steps[1]["counted"]["arithmetic: rejected by V(x)"] == 1
    heldout = (tmp_path / "store/pools/mine/notes@L8/heldout.jsonl").read_text().splitlines()
    assert heldout and all(" <> " in json.loads(line)["text"] for line in heldout)
