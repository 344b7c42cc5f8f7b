"""Text that UTF-8 cannot hold (half a surrogate pair, which JSON can spell) is mended where it enters, and counted."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from davinci.data.build import Request, build
from davinci.data.cards import read_card
from davinci.data.documents import Document, sound
from davinci.data.operations import Reader, registered
from davinci.data.pool_files import read_pool
from davinci.data.tally import Tally
from davinci.errors import UserError
from davinci.store import Store

ANY = st.text(st.characters(exclude_categories=()), max_size=30)
PLAIN = "An ordinary sentence of some words, which stands here so that a pool has text. "
# Operations that need a file, a server or documents of a kind of their own have tests of their own.
OTHERS = {
    *("archive", "arithmetic", "blocked_urls", "blocked_words", "calculations", "classifier", "completed_by_llm"),
    *(
        "decontaminated",
        "distinct_questions",
        "docstring_questions",
        "doctest_questions",
        "graded_by_llm",
        "purpose_questions",
    ),
    *("records_to_text", "refined_by_llm", "typical", "validated_by_running"),
}
# These find nothing worth keeping in such text: they judge it, and no shard is written at their level.
LEAVE_NOTHING = {"c4_paragraphs", "c4_quality", "fineweb_quality", "gopher_repetition"}
NEEDED = {"plain_rules": {"kind": "prose"}, "language": {"keep": ["en"]}}


@given(ANY, ANY, ANY)
def test_a_sound_document_is_text_and_stays(identity, question, rest):
    one = sound(Document(identity, identity, question + rest, question, origin={rest: question}))
    assert json.dumps([one.id, one.text, dict(one.origin)], ensure_ascii=False).encode()
    assert one.text.startswith(one.question) and sound(one) is one
    Tally().drop(Document(identity, identity, rest), "gone")


def chains():
    for name, kind in registered().items():
        if not issubclass(kind, Reader) and name not in OTHERS:
            yield pytest.param({name: NEEDED[name]} if name in NEEDED else name, kind.level, id=name)


@pytest.mark.parametrize(("step", "level"), chains())
@settings(max_examples=2, deadline=None)
@given(texts=st.lists(ANY, min_size=4, max_size=8))
def test_operations_shards_and_cards_hold_it(tmp_path_factory, step, level, texts):
    folder = tmp_path_factory.mktemp("broken")
    some = [*texts, "half \ud800", *(f"{PLAIN * 20}{one}" for one in range(12))]
    rows = "".join(json.dumps({"text": f"{PLAIN}{text}", "id": f"{at}{text}"}) + "\n" for at, text in enumerate(some))
    (folder / "a.jsonl").write_text(rows)
    chain = [{"jsonl": {"paths": "a.jsonl", "id": "id", "origin": ["id"]}}, step]
    source = {"domain": "general", "depths": ["L0", level], "chain": chain}
    pool = {"name": "own", "tokenizer": "own", "vocab_size": 280, "sources": {"texts": source}}
    (folder / "own.yaml").write_text(yaml.safe_dump(pool))
    store = Store(folder / "store")
    try:
        build(read_pool(folder / "own.yaml"), store, lambda line: None, Request(workers=1))
    except UserError as error:
        assert step in LEAVE_NOTHING and f"no documents at {level}" in str(error)
        return
    read = read_card(store, "own").sources["texts"].variants["L0"].chain[0]
    assert read["counted"]["documents with half a surrogate pair"] >= 1 and read["documents"] == len(some)
