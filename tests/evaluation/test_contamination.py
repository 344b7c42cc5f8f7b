"""Which rows of words stand in a text, and how often texts do: hashes and tables against plain Python."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from davinci.data.cards import read_card
from davinci.data.ngrams import contained
from davinci.evaluation.contamination import GRAM, grams
from davinci.evaluation.training_text import Frequencies, _new, texts
from davinci.store import Store

words = st.lists(st.sampled_from([b"a", b"b", b"c_1", b"the", b"2", b"+", "é".encode()]), max_size=40)


@given(st.lists(words.filter(bool).map(lambda one: tuple(one[:5])), max_size=8), st.lists(words, max_size=4))
def test_contamination_is_what_stands_in_a_row(wanted: list[tuple[bytes, ...]], some: list[list[bytes]]) -> None:
    expected = {
        gram
        for gram in wanted
        for text in some
        if any(tuple(text[at : at + len(gram)]) == gram for at in range(len(text) - len(gram) + 1))
    }
    found = contained(wanted, [np.frombuffer(b" \n".join(text).upper(), dtype=np.uint8) for text in some])
    assert found == expected


def test_grams_hold_a_word_of_the_answer() -> None:
    context, right = " ".join(f"w{n}" for n in range(20)), " is so."
    assert grams(context, right) == [
        (*(f"w{n}".encode() for n in range(8, 20)), b"is"),
        (*(f"w{n}".encode() for n in range(9, 20)), b"is", b"so"),
        (*(f"w{n}".encode() for n in range(10, 20)), b"is", b"so", b"."),
    ]
    assert grams("1 + 1 =", " 2.") == [(b"1", b"+", b"1", b"=", b"2", b".")], "a short item as a whole"
    (joined,) = grams("under", "score")
    assert joined == (b"underscore",)
    assert all(len(gram) == GRAM for gram in grams(context, " x" * 30))


def test_the_training_text_is_what_was_written(built_pool: Store) -> None:
    card = read_card(built_pool, "embedded")
    assert card is not None
    pool = built_pool.pool("embedded")
    tokenizer = Tokenizer.from_file(str(pool / "tokenizer.json"))
    expected = ""
    for name in sorted(card.sources):
        tokens = np.fromfile(pool / f"{name}@L3" / "train.bin", dtype="<u2")
        documents = np.split(tokens, np.flatnonzero(tokens == 0) + 1)
        expected += "".join(tokenizer.decode(one[:-1].tolist()) + "\n" for one in documents if len(one))
    assert b"".join(piece.tobytes() for piece in texts(built_pool, "embedded", card)).decode() == expected


def test_a_document_of_several_levels_is_read_once() -> None:
    known: set[bytes] = set()
    first, second = (np.array(one, dtype=np.uint16) for one in ([5, 6, 0, 7, 0, 8], [7, 0, 5, 6, 0, 6, 0, 8, 9]))
    assert _new(first, 0, known).tolist() == first.tolist()
    assert _new(second, 0, known).tolist() == [6, 0, 8, 9]
    assert _new(second, 0, known).tolist() == []


def test_frequencies_are_counts(built_pool: Store) -> None:
    card = read_card(built_pool, "embedded")
    assert card is not None
    pool = built_pool.pool("embedded")
    streams = [np.fromfile(pool / f"{name}@L3" / "train.bin", dtype="<u2").tolist() for name in card.sources]
    single = Counter(token for stream in streams for token in stream)
    pairs = Counter(pair for stream in streams for pair in pairwise(stream))
    text = " of the return"
    ids = Tokenizer.from_file(str(pool / "tokenizer.json")).encode(text).ids
    chance = {token: (single[token] + 1) / (sum(single.values()) + 512) for token in ids}
    by_one = sum(math.log(chance[token]) for token in ids)
    by_two = math.log(chance[ids[0]]) + sum(
        math.log((pairs[a, b] + chance[b]) / (single[a] + 1)) for a, b in pairwise(ids)
    )
    frequencies = Frequencies(built_pool, "embedded", card)
    assert frequencies.of(["x", text])[1].tolist() == pytest.approx([by_one, by_two], abs=1e-5)
    assert frequencies.of([text, text]).shape == (2, 2)
