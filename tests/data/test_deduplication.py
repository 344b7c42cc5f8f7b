"""L2: of what is the same one stays, wherever a source is cut."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_chain import documents, run_corpus

from davinci.data.documents import Document
from davinci.data.l2_rules.deduplication import AcrossDocuments
from davinci.data.l2_rules.duplicate_lines import DuplicateLines
from davinci.data.l2_rules.exact_duplicates import ExactDuplicates
from davinci.data.l2_rules.minhash import signature, simplified
from davinci.data.l2_rules.near_duplicates import NearDuplicates
from davinci.data.l2_rules.url_duplicates import UrlDuplicates, canonical

WORDS = ["".join(letters) for letters in itertools.product("abcdefghij", repeat=4)]  # numbers would all become one


def cut(some: list[Document], places: list[int]) -> list[list[Document]]:
    at = sorted({0, len(some), *(place % (len(some) + 1) for place in places)})
    return [some[begin:end] for begin, end in itertools.pairwise(at)] or [[]]


lines = st.sampled_from(["alpha beta gamma", "delta", "epsilon zeta", ""])
text = st.lists(lines, max_size=5).map("\n".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(text, max_size=8), st.lists(st.integers(0, 8), max_size=3), st.data())
def test_what_stays_does_not_depend_on_how_a_source_is_cut(
    tmp_path: Path, given_texts: list[str], places: list[int], data: st.DataObject
) -> None:
    operation = data.draw(
        st.sampled_from([ExactDuplicates(), DuplicateLines(min_characters=1), NearDuplicates(words=2, threshold=0.5)])
    )
    some = documents(*given_texts)
    whole, _ = run_corpus(operation, {"s": [some]}, tmp_path)
    parts, _ = run_corpus(operation, {"s": cut(some, places)}, tmp_path)
    assert whole == parts


@given(st.lists(text, min_size=1, max_size=8))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exactly_one_of_each_text_stays_and_it_is_the_first(tmp_path: Path, given_texts: list[str]) -> None:
    kept, tally = run_corpus(ExactDuplicates(), {"s": [documents(*given_texts)]}, tmp_path)
    assert [one.text for one in kept["s"]] == list(dict.fromkeys(given_texts))
    assert tally.dropped["exact duplicate"] == len(given_texts) - len(kept["s"])


@given(st.lists(text, min_size=1, max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exactly_one_of_each_line_stays_in_its_order(tmp_path: Path, given_texts: list[str]) -> None:
    kept, _ = run_corpus(DuplicateLines(min_characters=1), {"s": [documents(*given_texts)]}, tmp_path)
    found = [line for one in kept["s"] for line in one.text.split("\n") if line]
    assert found == [line for line in dict.fromkeys("\n".join(given_texts).split("\n")) if line]


def test_short_lines_stay_and_a_document_of_duplicates_goes(tmp_path: Path) -> None:
    notice = "Copyright, all rights reserved by us."
    kept, tally = run_corpus(
        DuplicateLines(), {"s": [documents(f"{notice}\n}}\none", f"two\n}}\n {notice} ", notice)]}, tmp_path
    )
    assert [one.text for one in kept["s"]] == [f"{notice}\n}}\none", "two\n}"]
    assert tally.dropped == {"nothing but duplicate lines": 1} and tally.counted["duplicate lines"] == 2


@pytest.mark.parametrize("kind", [ExactDuplicates, NearDuplicates, DuplicateLines])
def test_across_the_pool_the_source_first_by_name_keeps_it(tmp_path: Path, kind: type[AcrossDocuments]) -> None:
    same = " ".join(WORDS[:60])
    assert not kind().pool_wide and kind(across="pool").pool_wide
    sources = {"a": [documents(same, name="a")], "b": [documents(same, "other " * 9, name="b")]}
    kept, _ = run_corpus(kind(across="pool"), sources, tmp_path)
    assert {name: [one.id for one in some] for name, some in kept.items()} == {"a": ["a0"], "b": ["b1"]}


def near(rng: random.Random, similarity: float) -> tuple[str, str]:
    """Two texts whose 5-grams have that Jaccard similarity: a new piece at the end of the second."""
    words = rng.sample(WORDS, 300)
    shared = round(2 * 296 * similarity / (1 + similarity))
    return " ".join(words), " ".join(
        [*words[: shared + 4], *rng.sample([f"new{word}" for word in WORDS], 296 - shared)]
    )


def test_near_duplicates_by_threshold(tmp_path: Path) -> None:
    rng = random.Random(7)
    pairs = [near(rng, 0.95) for _ in range(30)] + [near(rng, 0.6) for _ in range(30)]
    some = documents(*(one for pair in pairs for one in pair))
    kept, _ = run_corpus(NearDuplicates(threshold=0.8), {"s": [some]}, tmp_path)
    ids = {one.id for one in kept["s"]}
    assert all(f"d{2 * index}" in ids for index in range(60))
    assert [f"d{2 * index + 1}" in ids for index in range(60)] == [False] * 30 + [True] * 30


def test_without_a_threshold_a_bucket_decides_and_groups_are_joined(tmp_path: Path) -> None:
    words = random.Random(3).sample(WORDS, 200)
    chain = [" ".join(words[start : start + 170]) for start in (0, 3, 6, 9)]
    kept, tally = run_corpus(NearDuplicates(), {"s": [documents(*chain, "short text", "short text")]}, tmp_path)
    assert [one.id for one in kept["s"]] == ["d0", "d4", "d5"]  # too short for a 5-gram: neither is judged
    assert tally.dropped == {"near duplicate": 3}


def test_a_signature_is_that_of_the_simplified_words() -> None:
    assert simplified("  Ça VA,\n1,234 fois (été)! ") == "ca va 0 fois ete"
    one = signature("One two, three four five six 7", 5, 112)
    other = signature("one TWO three — four five six 12.5", 5, 112)
    assert one is not None and other is not None and (one == other).all()
    assert signature("one two three four", 5, 112) is None
    assert one.max() < 2**61 and signature("a b c d e", 5, 3).tolist() == signature("a b c d e", 5, 3).tolist()  # type: ignore[union-attr]


def test_addresses(tmp_path: Path) -> None:
    assert canonical("HTTP://www.Example.org:80/a/?b=2&a=1&utm_source=x#top") == "example.org/a?a=1&b=2"
    assert canonical("http://[bad") == "http://[bad"
    some = [
        Document(f"d{index}", "k", "", origin={"url": url} if url else {})
        for index, url in enumerate(["http://a.org/x", "https://www.a.org/x/", "", "", "http://a.org/y"])
    ]
    kept, tally = run_corpus(UrlDuplicates(), {"s": [some]}, tmp_path)
    assert [one.id for one in kept["s"]] == ["d0", "d2", "d3", "d4"] and tally.dropped == {"duplicate address": 1}


def test_no_documents_at_all(tmp_path: Path) -> None:
    for operation in (ExactDuplicates(), NearDuplicates(threshold=0.8), DuplicateLines(), UrlDuplicates()):
        assert run_corpus(operation, {"s": [], "t": [[]]}, tmp_path)[0] == {"s": [], "t": []}
