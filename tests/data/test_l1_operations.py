"""L1: what is carried as bytes or markup becomes text, and nothing readable goes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_chain import documents, run_one, texts

from davinci.config import parse
from davinci.data.l1_normalisation.encodings import Encodings
from davinci.data.l1_normalisation.html import HtmlToText, html_to_text
from davinci.data.l1_normalisation.markdown import MarkdownToText
from davinci.data.l1_normalisation.unicode import Unicode
from davinci.errors import UserError

RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. " * 5


def carried(*data: bytes) -> list:
    return documents(*(one.decode("latin-1") for one in data), bytes=1)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Tous les êtres humains naissent libres et égaux en dignité et en droits, à la fin.", "cp1252"),
        ("The naïve café owner said “it’s fine” – and it cost £5.", "cp1252"),
        ("Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.", "cp1250"),
        ("Все люди рождаются свободными и равными в своём достоинстве и правах.", "koi8-r"),
        ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.", "cp949"),
    ],
)
def test_a_sentence_in_an_old_encoding_is_read(text: str, encoding: str) -> None:
    (one,), _ = run_one(Encodings(), carried(text.encode(encoding)))
    assert one.text == text


def test_a_source_may_mix_encodings_and_none_of_them_stops_it() -> None:
    given = [
        RUSSIAN.encode("utf-8"),
        RUSSIAN.encode("cp1251"),
        b"\xef\xbb\xbfmarked",
        "déjà vu".encode("utf-16"),
        '<meta charset="shift_jis">日本語の文章'.encode("shift_jis"),
        "naïve café, déjà vu ".encode() + b"caf\xe9",
        b"plain",
    ]
    kept, tally = run_one(Encodings(), carried(*given, b"\xff\xfe\x00\xd8\x00"))
    assert [one.text for one in kept] == [
        RUSSIAN,
        RUSSIAN,
        "marked",
        "déjà vu",
        '<meta charset="shift_jis">日本語の文章',
        "naïve café, déjà vu café",
        "plain",
    ]
    assert tally.counted["stray bytes"] == 1 and tally.dropped == {"undecodable": 1}
    assert [one.origin["encoding"] for one in kept[:2]] == ["utf-8", "cp1251"]
    assert all("bytes" not in one.origin for one in kept)


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_dropped(data: bytes) -> None:
    kept, tally = run_one(Encodings(), carried(data))
    assert len(kept) + sum(tally.dropped.values()) == 1


def test_text_that_is_text_already_stays() -> None:
    (one,), _ = run_one(Encodings(), documents("Ã©"))
    assert one.text == "Ã©"


def test_an_expected_encoding_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="expected"):
        parse(Encodings, {"expected": ["latin-x"]})
    (one,), _ = run_one(Encodings(expected=("cp437",)), carried("é".encode("cp437")))
    assert one.text == "é"


@given(st.text(max_size=60), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_unicode_is_idempotent_and_normal(text: str, form: str) -> None:
    operation = parse(Unicode, {"form": form})
    (once,) = texts(operation, text)
    assert texts(operation, once) == [once]
    assert unicodedata.is_normalized(form, once)


def test_unicode_keeps_what_can_be_read() -> None:
    (text,) = texts(Unicode(), "e\u0301\r\na\u00a0b\u200b\ufeff\x07\u2028می\u200cخواهم 👩\u200d🔬")
    assert text == "é\na b\nمی\u200cخواهم 👩\u200d🔬"
    assert texts(Unicode(), "\ud800x") == ["\ufffdx"]


PAGE = """<html><head><title>A  title</title><script>x=1</script><style>p{}</style></head><body>
<nav><a href=/>Home</a></nav><h1>Head<br>line</h1><p>One <b>bold</b>
word<sup>2</sup>, H<sub>2</sub>O &amp; more.</p>
<ul><li>a<li>b<ol start=3><li>c</ol></ul>
<table><tr><th>x<th>y<tr><td>1<td><p>2</table>
<table><tr><td><table><tr><td>in</table><td>out</table>
<pre>def f():
    return  1
</pre><p>then <code>a  b</code><math><mi>x</mi><annotation encoding="application/x-tex">x^2</annotation></math>
<script type="math/tex; mode=display">E=mc^2</script><noscript>no</noscript></body>"""


def test_a_page_keeps_its_structure() -> None:
    text, title = html_to_text(PAGE)
    assert title == "A title"
    assert text == (
        "Home\n\nHead\nline\n\nOne bold word², H₂O & more.\n\n- a\n- b\n  3. c\n\nx | y\n1 | 2\n\nin\n\nout\n\n"
        "def f():\n    return  1\n\nthen a  b$x^2$\n$$E=mc^2$$\n"
    )


def test_pages_that_are_none_do_not_stop_it() -> None:
    assert html_to_text("") == ("", "")
    assert html_to_text("<" * 100 + "\0")[0]
    assert html_to_text("<div>" * 3000 + "deep")[0] == "deep\n"
    assert html_to_text("<li>a</ol></table></td><p>b")[0] == "- a\n\n  b\n"


@given(st.lists(st.text(alphabet="abcdé漢 ", min_size=1, max_size=12), min_size=1, max_size=6))
def test_every_word_of_a_page_is_kept_in_order(parts: list[str]) -> None:
    page = "".join(
        f"<{tag}>{part}</{tag}>" for tag, part in zip(["p", "div", "h2", "li", "blockquote", "td"], parts, strict=False)
    )
    assert html_to_text(page)[0].replace("- ", "").split() == " ".join(parts).split()


def test_markdown_reads_as_its_page() -> None:
    (text,) = texts(
        MarkdownToText(), "# Head\n\n*One* [link](x) `a  b`\n\n- a\n- b\n\n|x|y|\n|-|-|\n|1|2|\n\n    code\n      in\n"
    )
    assert text == "Head\n\nOne link a  b\n\n- a\n- b\n\nx | y\n1 | 2\n\ncode\n  in\n"


def test_ids_and_origin_persist() -> None:
    (one,), _ = run_one(HtmlToText(), documents("<title>t</title><p>x", url="u"))
    assert (one.id, dict(one.origin)) == ("d0", {"url": "u", "title": "t"})
