"""Documents of any length: nothing of one is kept longer than it is needed, and pieces give what the whole gives."""

import json
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davinci.data import documents, passes
from davinci.data.documents import Document, size_of, sound
from davinci.data.l1_normalisation import unicode
from davinci.data.l2_rules.deduplication import hash_of
from davinci.data.operations import Places, read_chain
from davinci.data.tally import Tally


class Watched(str):
    """A text whose end can be seen."""

    __slots__ = ("__weakref__",)


def test_no_step_keeps_a_document_that_has_gone_on(tmp_path):
    """Of a chain that changes a text at every step one step's text is alive at a time."""
    alive = weakref.WeakSet()

    def watched(one):
        text = Watched(one.text)
        alive.add(text)
        return Document(one.id, one.split_key, text)

    most = 0
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": f"{number} a\r\nb {number}"}) + "\n" for number in range(5)))
    places = Places(*[tmp_path] * 4)
    reader, step = read_chain([{"jsonl": {"paths": [str(file)]}}, "unicode"], "here")
    tally = Tally()
    stream = map(watched, passes._leaving(reader.read(reader.parts(places)[0], places, tally), tally, []))
    for _ in range(3):
        stream = passes._leaving(map(watched, step.run(passes._entering(stream, tally), tally, places)), tally, [])
    count = 0
    for _ in stream:
        del _
        most, count = max(most, len(alive)), count + 1
    assert count == 5 and most <= 1


@given(st.text(st.characters(max_codepoint=127)), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_ascii_is_normalised_as_any_text_is(text, form):
    assert unicode._ascii(text) == unicode.Unicode(form=form)._normal(text)


@pytest.mark.parametrize("text", ["", "a" * 20, "né " * 7, "\ud83d\ude00" * 3])
def test_pieces_give_what_the_whole_gives(text, monkeypatch):
    def said():
        return size_of(sound(Document("a", "a", text)).text), hash_of(text), sound(Document("a", "a", text)).text

    whole = said()
    monkeypatch.setattr(documents, "_PIECE", 3)
    assert said() == whole and "".join(documents.pieces(text)) == text
