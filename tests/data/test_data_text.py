"""From markup and source to documents: markup, docstrings, questions, rules, arithmetic."""

import re

import pytest

from davinci.data.documents import Document
from davinci.data.l0_acquisition.python_source import docstrings
from davinci.data.l1_normalisation.plain_text import normalise
from davinci.data.l1_normalisation.restructured_text import rst_to_text
from davinci.data.l2_rules import embedded_rules as rules
from davinci.data.l5_completion.arithmetic import _THINGS as THINGS
from davinci.data.l5_completion.arithmetic import Arithmetic, arithmetic
from davinci.data.l5_completion.questions import _doctests, _purposes, asked
from davinci.data.tally import Tally

SEED = 20251
PAGE = """
.. _label:

=======
A title
=======

Some :class:`~a.b.Thing` and ``code`` with a `link text <url>`_ that goes on
over the end of the line, with **strong** and *weak* words.

.. versionadded:: 1.2

   It came late.

.. image:: picture.png
   :alt: not text

Like this::

    >>> 1 + 1
    2

.. a comment
   of two lines

* one `item`
* two
"""


def test_markup_leaves_what_a_reader_sees():
    assert rst_to_text(PAGE) == (
        "A title\n\n"
        "Some Thing and code with a link text that goes on over the end of the line, with strong and weak words.\n\n"
        "New in version 1.2\n\n   It came late.\n\n"
        "Like this:\n\n    >>> 1 + 1\n    2\n\n"
        "* one item\n* two\n"
    )


def test_normalise():
    assert normalise("\ufeffa\r\nb\rc  \x00\n\n\n\n\n\nd\u0065\u0301\u00a0x") == "a\nb\nc\n\n\nd\u00e9 x\n"
    assert normalise(normalise("x\n\n\n\n\ny")) == normalise("x\n\n\n\n\ny")


SOURCE = '''"""Module."""
DOCS = """Says a lot.

    >>> DOCS
    1
"""
class A:
    """A class."""
    def f(self, x, *rest, key=1, **more):
        """Does f. And more."""
        def inner():
            """Not interface."""
    async def g(self): "Short."
'''


def test_docstrings_of_a_file():
    found = {one.name: one for one in docstrings("pack/mod/__init__.py", SOURCE)}
    assert list(found) == ["pack.mod", "pack.mod.DOCS", "pack.mod.A", "pack.mod.A.f", "pack.mod.A.g"]
    assert found["pack.mod.A.f"].call == "pack.mod.A.f(x, *rest, key, **more)"
    assert found["pack.mod"].call == "" and found["pack.mod.A"].call == "pack.mod.A"
    assert docstrings("x.py", "def broken(") == []


def test_questions_from_doctests():
    text = (
        ">>> from a import *\n>>> x = 3\n>>> y = 4\n>>> x = 5\n>>> x + 1  # comes next\n6\n"
        ">>> print(1)\n1\n2\n>>> f()\nTraceback\n"
    )
    assert list(_doctests("Pack", "", "", text)) == [("In Pack, what does `x + 1` give after `x = 5`?", "6")]


def test_questions_from_docstrings():
    text = "Return the thing that\nwas asked for. Then rest.\n\nMore."
    assert list(_purposes("", "", "f(x)", text)) == [("What does `f(x)` do?", "Return the thing that was asked for.")]
    assert not list(_purposes("", "", "f(x)", "Short."))
    assert not list(_purposes("", "", "", text))


def test_question_is_a_prefix_that_ends_at_the_answer():
    one = asked("i", "k", "Why?", " Because. ", grade=1)
    assert one.text == "Question: Why?\nAnswer: Because.\n" and one.question == "Question: Why?\nAnswer:"
    assert one.fields == {"question": "Why?", "answer": "Because.", "grade": 1}


def test_rules_drop_and_count():
    sentence = "This is a sentence that says something about the world we know. "
    documents = [
        Document("a", "a", sentence * 1 + "\n"),
        Document("b", "b", "\n\n".join(f"{sentence}Number {word}." for word in ("one", "two", "three", "four")) + "\n"),
        Document("c", "c", (sentence + "\n") * 20),
        Document("d", "d", "{}[]<>@# " * 20 + sentence * 10),
    ]
    tally, kind = Tally(), rules.PlainRules(kind="prose")
    assert [one.id for document in documents for one in kind.apply(document, tally)] == ["b"]
    assert tally.dropped == {"too short": 1, "repeated lines": 1, "too many symbols": 1}


def test_trim_keeps_sentences():
    text = "Heading\n\nThis is a sentence that has quite enough words in it.\n\n    code = 1\n\nx y z\n"
    assert rules.prose_paragraphs(text) == ("This is a sentence that has quite enough words in it.\n", 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\n", "too short"),
        ("value = " + "12345, " * 400, "overlong line"),
        ("DATA = [\n" + "".join(f"    {n}, {n * n}, {n**3},\n" for n in range(100, 200)) + "]\n", "too many digits"),
        (
            "def f(x):\n    return x\n\n\n" + "".join(f"def name_{c}(value):\n    return value\n" for c in "abcdefgh"),
            None,
        ),
    ],
)
def test_code_rules(text, reason):
    assert rules.python_code(text) == reason


def test_arithmetic_is_right_and_repeatable():
    documents = list(arithmetic(4000, SEED))
    assert documents == list(Arithmetic(documents=4000, seed=SEED).read({}, None, Tally()))
    assert {one.fields["grade"] for one in documents} == {1, 2, 3, 4, 5, 6}
    for one in documents:
        drill = re.fullmatch(r"\w+ asks: (\d [+-] \d)\?", one.fields["question"])
        if one.fields["grade"] == 1:
            assert one.fields["answer"] == f"{eval(drill[1])}."
            continue
        steps = re.findall(r"([\d+*\- ]+) = (\d+)\.", one.fields["answer"])
        assert steps and drill is None
        for expression, result in steps:
            assert eval(expression) == int(result), one.text
        assert one.fields["answer"].endswith(f" {steps[-1][1]}.")
        asked_for = re.fullmatch(r"What is ([\d+*\- ]+)\?", one.fields["question"])
        if asked_for:
            assert eval(asked_for[1]) == int(steps[-1][1]), one.text


def test_arithmetic_grades_are_as_described():
    for one in arithmetic(3000, SEED):
        found = re.fullmatch(r"What is (\d+) ([+*-]) (\d+)\?", one.fields["question"])
        if found is None:
            continue
        a, sign, b = int(found[1]), found[2], int(found[3])
        grade = one.fields["grade"]
        ones = a % 10 + b % 10 if sign == "+" else a % 10 - b % 10
        if grade == 2:
            assert sign == "*" or (a >= 10 and 0 <= ones < 10 and (b < 10 or a % 10 == b % 10 == 0))
        else:
            assert a >= 10 and b >= 10 and (0 <= ones < 10) == (grade == 3)


def test_a_problem_is_held_out_in_all_its_wordings():
    """13 + 5, 13 plus 5 and a story about them are one problem; of drilled facts a question is held out."""
    documents = list(arithmetic(20_000, SEED))
    heldout = {one.split_key for one in documents if one.is_heldout(0.25)}
    asked_train = {one.fields["question"] for one in documents if one.split_key not in heldout}
    asked_heldout = {one.fields["question"] for one in documents if one.split_key in heldout}
    assert asked_heldout and not asked_train & asked_heldout
    for question in asked_heldout:
        if found := re.fullmatch(r"What is (\d+) \+ (\d+)\?", question):
            assert f"What is {found[1]} plus {found[2]}?" not in asked_train
            assert not any(f"has {found[1]} {one} and gets {found[2]} more" in " ".join(asked_train) for one in THINGS)


def test_split_is_by_key_not_by_content():
    assert Document("a", "key", "x").is_heldout(0.5) == Document("b", "key", "y").is_heldout(0.5)
    share = sum(Document("", str(one), "").is_heldout(0.03) for one in range(20_000)) / 20_000
    assert abs(share - 0.03) < 0.005


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
