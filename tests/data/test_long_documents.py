"""Documents of any length: nothing of one is kept longer than it is needed, and pieces give what the whole gives."""

import json
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davinci.data import long_texts, passes
from davinci.data.documents import Document, size_of, sound
from davinci.data.l1_normalisation import unicode
from davinci.data.l2_rules import ngrams
from davinci.data.l2_rules.deduplication import hash_of
from davinci.data.l2_rules.minhash import signature
from davinci.data.l3_model_filter import typical
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
    monkeypatch.setattr(long_texts, "LONG", 3)
    assert said() == whole and "".join(long_texts.pieces(text)) == text


RULES = [
    {"gopher_quality": {"min_words": 4, "max_words": 60, "min_stop_words": 1}},
    {"gopher_repetition": {"max_duplicate_lines": 0.6, "max_duplicate_paragraphs": 0.6}},
    {"gopher_repetition": {"max_top_ngram": {}, "max_duplicate_line_characters": 1, "max_duplicate_ngrams": {2: 0.2}}},
    {"fineweb_quality": {"max_duplicate_line_characters": 0.3}},
    {"c4_quality": {"min_sentences": 2}},
    {"length": {"min_words": 10, "max_words": 40}},
    "prose_paragraphs",
    {"plain_rules": {"kind": "prose"}},
    {"plain_rules": {"kind": "technical"}},
    {"plain_rules": {"kind": "python"}},
]
SIGNS = ["\n", "\n\n", "\r\n", "\u2028", "\u0301e ", "- one… ", "12,5 ", "{ ", "# "]
SENTENCE = "And that is what we have to say of it, with all the words that it takes. "
TEXTS = st.lists(st.sampled_from(["the cat ", "of mice. ", "of mice. ", "Σας ", SENTENCE, *SIGNS]), max_size=60).map(
    "".join
)


@given(TEXTS, st.integers(1, 40))
def test_a_long_text_is_judged_as_any_is(text, at_once):
    """Words, lines and n-grams of stretches are those of the whole."""
    steps = read_chain([{"jsonl": {"paths": ["a"]}}, *RULES], "here")[1:]

    def said():
        tally = Tally()
        left = [[one.text for one in step.apply(Document("a", "a", text), tally)] for step in steps]
        hashes = signature(text, 3, 8)
        words, counts = typical._count(text)
        order = words.argsort()
        return left, tally.to_json(), hashes is None or hashes.tolist(), words[order].tolist(), counts[order].tolist()

    whole = said()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_texts, "LONG", at_once)
        patch.setattr(ngrams, "_AT_ONCE", at_once)
        assert said() == whole
