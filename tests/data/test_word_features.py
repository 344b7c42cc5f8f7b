"""A classifier's features are those of scikit-learn's HashingVectorizer, bit for bit."""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer

from davinci.data.l3_model_filter import word_features
from davinci.data.l3_model_filter.word_features import FEATURES, LONGEST, features

PIECES = [
    "word",
    "Word",
    "x_9",
    "2026",
    "٣٤",
    "été",
    "İstanbul",
    "ΑΣ",
    "Σ",
    "日本語",
    "。",
    "𝒳𝟘",
    "a\u0300",
    "--",
    "“q”",
    "\ud800",
]
PIECES += [" ", "  ", "\n", "\u00a0", "\u2028", "\t", "."]


def by_scikit_learn(texts):
    vectorizer = HashingVectorizer(
        n_features=FEATURES, ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", alternate_sign=False, norm="l2"
    )
    return vectorizer.transform([re.sub(r"\d", "0", text[:LONGEST]).replace("\ud800", "?") for text in texts])


def check(texts):
    ours, theirs = features(texts), by_scikit_learn(texts)
    assert ours.shape == theirs.shape
    for name in ("indptr", "indices", "data"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


@given(
    st.lists(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)), min_size=1)
)
@settings(max_examples=150, deadline=None)
def test_any_texts(texts):
    check(texts)


@pytest.mark.parametrize("longest", [1, 4, 255, 256, 300, 5_000])
def test_words_of_any_length(longest):
    chance = random.Random(longest)
    check([" ".join("aé"[chance.random() < 0.01] * chance.randint(1, longest) for _ in range(20)) for _ in range(5)])


def test_long_texts_and_many_of_them(monkeypatch):
    check(["", "x" * (LONGEST - 1) + "é é", "a b " * LONGEST, ""])
    many = [" ".join(random.Random(one).choices(PIECES[:-8], k=one % 50)) for one in range(500)]
    check(many)
    monkeypatch.setattr(word_features, "_AT_ONCE", 100)
    check(many)
