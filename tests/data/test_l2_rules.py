"""L2: rules of one document, their published numbers and their reasons."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_chain import documents, run_one, texts

from davinci.config import parse
from davinci.data.l2_rules.blocklists import BlockedUrls, BlockedWords
from davinci.data.l2_rules.c4 import C4Paragraphs, C4Quality
from davinci.data.l2_rules.fineweb import FineWebQuality
from davinci.data.l2_rules.gopher import GopherQuality, GopherRepetition
from davinci.data.l2_rules.language import Language
from davinci.data.l2_rules.length import Length
from davinci.data.l2_rules.main_content import MainContent
from davinci.data.l2_rules.personal_information import PersonalInformation, passes_luhn
from davinci.data.l2_rules.words import sentences_in, words_of
from davinci.data.operations import DocumentOperation
from davinci.errors import UserError

PROSE = "The cat that sat on the mat was happy to have with it a ball of red wool, and it did not move. "
ALL: list[DocumentOperation] = [
    GopherQuality(),
    GopherRepetition(),
    FineWebQuality(),
    C4Quality(),
    C4Paragraphs(),
    Length(min_characters=1),
    Language(keep=("en",)),
    PersonalInformation(),
    BlockedWords(words=("bad",)),
    BlockedUrls(hosts=("x.org",)),
    MainContent(),
]
ODD = [
    "",
    " ",
    "\n",
    "word",
    "漢字" * 500,
    "שלום עולם. " * 50,
    "👍🏽" * 300,
    "x" * 1_000_000,
    "\x00\x01",
    ".\n" * 50,
    "\u2028",
]


def reasons(operation: DocumentOperation, text: str, **origin: Any) -> set[str]:
    _, tally = run_one(operation, documents(text, **origin))
    return set(tally.dropped)


@pytest.mark.parametrize("operation", ALL, ids=lambda one: one.name)
def test_odd_text_is_kept_or_dropped_with_a_reason(operation: DocumentOperation) -> None:
    kept, tally = run_one(operation, documents(*ODD))
    assert len(kept) + sum(tally.dropped.values()) == len(ODD)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop (now)!", "Do n't stop ( now ) !"),
        ("He said: “I'll go at 5pm.”", "He said : “ I 'll go at 5 pm . ”"),
        ("Mr. Smith's e-mail cost $5.50, e.g. 10km...", "Mr. Smith 's e - mail cost $ 5.50 , e.g. 10 km ..."),
        ("see www.example.org/a?b=1, ok :) its", "see www.example.org/a?b=1 , ok :) its"),
        ("漢字。かな", "漢字。かな"),
    ],
)
def test_words_are_those_of_the_published_rules(text: str, words: str) -> None:
    assert words_of(text) == words.split(" ")


@given(st.text(max_size=80))
def test_words_are_the_text_without_its_blanks(text: str) -> None:
    assert "".join(words_of(text)) == "".join(text.split())


def test_sentences() -> None:
    assert sentences_in('One. "Two!" he said. Three?! Four... Five', 9) == 5
    assert sentences_in("One day. Two days. Three.", 2) == 2
    assert sentences_in("  ", 5) == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE * 3, None),
        (PROSE * 2, "too few words"),
        ("a of to " * 40, "words too short"),
        ("the of " + "abcdefghijklm" * 2 + " " + "incomprehensibilities " * 60, "words too long"),
        (PROSE * 3 + "# " * 20, "too many hash signs"),
        (PROSE * 3 + "word… " * 20, "too many ellipses"),
        ("- the cat that sat on the mat\n" * 20, "too many bullet lines"),
        ("the cat that sat on the mat over there and all the day long...\n" * 12, "too many lines end in an ellipsis"),
        (PROSE * 3 + "12345 " * 30, "too few words with letters"),
        ("cat dog bird fish tree house river stone " * 10, "too few stop words"),
    ],
)
def test_gopher_quality(text: str, reason: str | None) -> None:
    assert reasons(GopherQuality(), text) == ({reason} if reason else set())


def different(count: int) -> list[str]:
    return [f"word{index}" for index in range(count)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" ".join(different(300)), None),
        ("\n\n".join([*different(6), *["word0"] * 3]), "duplicate paragraphs"),
        ("\n".join([*different(6), *["word0"] * 3]), "duplicate lines"),
        (
            "\n".join([*different(20), "a line of some length " * 3, "a line of some length " * 3]),
            "characters in duplicate lines",
        ),
        (" ".join(word for one in different(30) for word in (one, "same", "thing")), "commonest 2-gram"),
        (" ".join([*different(100), *different(40)]), "duplicate 5-grams"),
    ],
)
def test_gopher_repetition(text: str, reason: str | None) -> None:
    assert reasons(GopherRepetition(), text) == ({reason} if reason else set())


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dd", "e"]), max_size=80), st.integers(5, 10), st.floats(0, 1))
def test_duplicate_ngrams_are_counted_from_left_to_right(words: list[str], n: int, share: float) -> None:
    seen: set[tuple[str, ...]] = set()
    characters = at = 0
    while at + n <= len(words):
        gram = tuple(words[at : at + n])
        if gram in seen:
            characters += len("".join(gram))
            at += n
        else:
            seen.add(gram)
            at += 1
    text = " ".join(words)
    rule = GopherRepetition(
        **dict.fromkeys(GopherRepetition.model_fields, 1.0) | {"max_top_ngram": {}, "max_duplicate_ngrams": {n: share}}
    )
    expected = {"empty"} if not text else {f"duplicate {n}-grams"} if characters / len(text) > share else set()
    assert reasons(rule, text) == expected


@given(
    st.lists(st.sampled_from(["a", "bb", "ccc", "dd", "e"]), min_size=1, max_size=40),
    st.integers(1, 4),
    st.floats(0, 1),
)
def test_the_commonest_ngram(words: list[str], n: int, share: float) -> None:
    text = " ".join(words)
    grams = Counter(" ".join(words[at : at + n]) for at in range(len(words) - n + 1))
    (gram, times) = grams.most_common(1)[0] if grams else ("", 0)
    rule = GopherRepetition(
        **dict.fromkeys(GopherRepetition.model_fields, 1.0) | {"max_top_ngram": {n: share}, "max_duplicate_ngrams": {}}
    )
    assert reasons(rule, text) == ({f"commonest {n}-gram"} if len(gram) * times / len(text) > share else set())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("This line is long enough and ends well.\nSo does this other line of this text.\n", None),
        ("no end at all in this line of text here\n" * 9, "too few lines end in punctuation"),
        ("\n".join(f"Short {index}." for index in range(9)), "too many short lines"),
        ("The same line again and again, all day.\n" * 5, "characters in duplicate lines"),
        ("\n\n\n\n".join(f"{one} is a word that nobody has seen." for one in different(9)), "too many line breaks"),
    ],
)
def test_fineweb_quality(text: str, reason: str | None) -> None:
    assert reasons(FineWebQuality(), text) == ({reason} if reason else set())


def test_c4_takes_lines_that_are_no_sentences() -> None:
    good = "\n".join(f"This is sentence number {index}." for index in range(5))
    (one,), tally = run_one(
        C4Quality(),
        documents(
            f" Menu \n{good}[1][citation needed]\nToo few.\nEnable JavaScript please.\n"
            f"We use cookies, you know.\nIt goes on...\n{'x' * 1001} a b c."
        ),
    )
    assert one.text == good.removesuffix(".") + "." and one.id == "d0"
    assert tally.counted == {
        "lines: no terminal punctuation": 2,
        "lines: too few words": 1,
        "lines: javascript": 1,
        "lines: policy": 1,
        "lines: a word too long": 1,
    }
    assert reasons(C4Quality(), good + "\nThis is { a bracket.") == {"curly bracket"}
    assert reasons(C4Quality(), good + "\nLorem Ipsum dolor.") == {"lorem ipsum"}
    assert reasons(C4Quality(), "This is one sentence. This is another.") == {"too few sentences"}


@given(st.lists(st.sampled_from(["A line that is kept.", "menu", "Another line, kept too!", ""]), max_size=12))
def test_c4_keeps_the_order_of_lines(lines: list[str]) -> None:
    kept = texts(C4Quality(min_sentences=0), "\n".join(lines))
    assert kept == ["\n".join(line for line in lines if line.startswith("A"))]


def test_c4_paragraphs() -> None:
    assert reasons(C4Paragraphs(), "\n".join(["x" * 200] * 3)) == set()
    assert reasons(C4Paragraphs(), "\n".join(["x" * 200] * 2 + ["x" * 199])) == {"too few paragraphs"}


def test_language() -> None:
    english, german = PROSE, "Der Hund lief über die Straße und bellte laut, weil er Hunger hatte."
    (one,), tally = run_one(Language(keep=("en",)), documents(english, german, "", "zq xv 0x3"))
    assert one.origin["language"] == "en" and one.origin["language_percent"] >= 65
    assert tally.dropped["language de"] == 1 and tally.dropped["language unknown"] == 1
    with pytest.raises(UserError, match="keep"):
        parse(Language, {})


def test_length() -> None:
    assert reasons(Length(min_characters=3), "ab") == {"too few characters"}
    assert reasons(Length(max_characters=1), "ab") == {"too many characters"}
    assert reasons(Length(min_words=2), "ab") == {"too few words"}
    assert reasons(Length(max_words=1), "a b") == {"too many words"}


def test_personal_information_is_replaced_and_counted() -> None:
    # Test numbers and addresses that their issuers publish; keys put together here.
    card, key = "4111 1111 1111 1111", "AKIA" + "A1B2" * 4
    text = (
        f"Mail jane.doe+x@mail.example.com or call +44 20 7946 0958, (212) 555-0147; {card}; 8.8.8.8, 10.0.0.1; "
        f"{key} v1.2.3.4567"
    )
    (one,), tally = run_one(PersonalInformation(), documents(text))
    assert one.text == "Mail <email> or call <phone>, <phone>; <card>; <ip>, 10.0.0.1; <key> v1.2.3.4567"
    assert tally.counted == {
        "email replaced": 1,
        "phone replaced": 2,
        "card replaced": 1,
        "ip replaced": 1,
        "key replaced": 1,
    }
    assert reasons(PersonalInformation(drop=True), text) == {"holds a key"}
    assert reasons(PersonalInformation(drop=True, kinds=("email",)), text) == {"holds an email"}


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",
        "2024-11-29 12:30:45 at 192.168.0.1",
        "version 1.2.3, std::vector::size, a@b",
        "0.1234567890123456 and 3.14159265358979323846",
        "ISBN 978-3-16-148410-0 for 1,234,567,890",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert texts(PersonalInformation(), text) == [text]


@given(st.text(alphabet="a1.@+- :()4", max_size=60))
def test_replacing_twice_changes_nothing_more(text: str) -> None:
    once = texts(PersonalInformation(), text)
    assert texts(PersonalInformation(), *once) == once


def test_luhn() -> None:
    assert passes_luhn("79927398713") and not passes_luhn("79927398710")


def test_blocklists() -> None:
    assert reasons(BlockedWords(words=("Bad thing",)), "A BAD THING.") == {"blocked word"}
    assert reasons(BlockedWords(words=("bad",)), "badly") == set()
    assert reasons(BlockedWords(words=("bad",), inside=True), "badly") == {"blocked word"}
    assert reasons(BlockedWords(words=("bad",), occurrences=2), "bad") == set()
    rule = BlockedUrls(hosts=("Spam.org",), words=("casino",))
    assert reasons(rule, "", url="https://www.spam.org/a") == {"blocked host"}
    assert reasons(rule, "", url="http://notspam.org/") == set()
    assert reasons(rule, "", url="http://a.b/big-casino") == {"blocked word in address"}
    assert reasons(rule, "", url="http://[oops") == {"address unreadable"}
    assert reasons(rule, "") == set()


def test_main_content_leaves_the_menu_out() -> None:
    page = f"<body><nav><ul><li><a href=/>Home</a></ul></nav><article><h1>Title</h1><p>{PROSE * 3}</p></article></body>"
    (text,) = texts(MainContent(), page)
    assert PROSE.strip() in text and "Home" not in text
    assert reasons(MainContent(), "<nav><a href=/>Home</a></nav>") == {"no main content"}
