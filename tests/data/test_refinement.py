"""Level 4: what is faithful, and what the rules make of technical text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davinci.data.documents import Document
from davinci.data.l4_refinement.faithfulness import Limits, names, numbers, unfaithful
from davinci.data.l4_refinement.technical_text import refine
from davinci.data.operations import _read_step
from davinci.data.tally import Tally
from davinci.errors import UserError

ORIGINAL = (
    'In 1905 Einstein wrote four papers. The function poly_gcd of sympy.polys gives "x - 1" for 1,200 cases, '
    "so that three of them take 0.50 seconds; the other methods need more time, which is what one would expect here."
)
LIMITS = Limits()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("four", "4"), None),
        (("1,200", "1200"), None),
        (("0.50", "0.5"), None),
        (("Einstein wrote", "it was Einstein who wrote"), None),
        (("x - 1", "X - 1"), None),
        (("which is what one would expect here", "as the EXPECTED time shows"), "new names"),
        (("1905", "1906"), "new numbers"),
        (("three", "seven"), "new numbers"),
        (("Einstein wrote", "when young Lorentz wrote"), "new names"),
        (("sympy.polys", "sympy.series"), "new names"),
        (("poly_gcd", "poly_lcm"), "new names"),
        (('"x - 1"', '"x + y"'), "new quotations"),
        (("In 1905 Einstein", "Einstein"), "missing numbers"),
    ],
)
def test_a_faithful_text_adds_no_number_name_or_quotation(change, reason):
    assert change[0] in ORIGINAL
    assert unfaithful(ORIGINAL, ORIGINAL.replace(*change), LIMITS) == reason


def test_length_is_bounded_on_both_sides():
    words = "some words that say little about anything at all "
    assert unfaithful(words * 4, words, LIMITS) == "too short"
    assert unfaithful(words, words * 4, LIMITS) == "too long"
    assert unfaithful(words, words * 4, Limits(longest=5)) is None


def test_missing_numbers_are_a_share():
    text = "values 11 12 13 14 15 16 17 18 19 20 " + "and words " * 10
    assert unfaithful(text, text.replace("11 ", ""), LIMITS) is None
    assert unfaithful(text, text.replace("11 12 ", ""), LIMITS) == "missing numbers"
    assert unfaithful(text, text.replace("11 ", ""), Limits(missing_numbers=0)) == "missing numbers"


def test_a_text_about_something_else_misses_the_words():
    text = "The density of the graph is the fraction of possible edges that are present among its nodes."
    other = "This is a simple and concise example of how the function is often used in practice by people."
    assert unfaithful(text, other, LIMITS) == "missing words"
    assert unfaithful(text, other, Limits(missing_words=1)) is None
    assert unfaithful(text, text.replace("fraction of possible edges", "share of possible edges"), LIMITS) is None


@given(st.text(alphabet="abcXYZ .,0123456789\n\"'_", max_size=200))
def test_every_text_is_faithful_to_itself(text):
    assert unfaithful(text, text, LIMITS) is None


def test_numbers_and_names_are_read_alike():
    assert {"1200", "3.5", "7"} <= numbers("1,200 and 03.50 and 007")
    assert set(names("We use Python. Then camelCase, snake_case and a.b in Rome.")) == {
        *("Python", "camelCase", "snake_case", "a", "b", "Rome")
    }


DOCSTRING = """\
sympy.polys.tools.gcd_of(f, g)

Compute the GCD of polynomials,
e.g. for f iff g is not zero [Knuth81]_.

Explanation

The method w.r.t. \\alpha is due to Euclid

Parameters

f : Poly
    The first polynomial, of degree 3
    or more.
g : Poly
    The second.

Examples

>>> gcd_of(x**2 - 1, x - 1)
x - 1

See Also

lcm_of, resultant

References

[Knuth81] Knuth, The Art of Computer Programming, 1981
https://example.org/gcd
"""
REFINED = """\
The function sympy.polys.tools.gcd_of(f, g).

Compute the GCD of polynomials, for example, for f if and only if g is not zero.

The method with respect to alpha is due to Euclid.

Parameter f (Poly): The first polynomial, of degree 3 or more.
Parameter g (Poly): The second.

Examples:

>>> gcd_of(x**2 - 1, x - 1)
x - 1

See also lcm_of, resultant.
"""


def test_rules_make_sections_sentences_and_take_out_debris():
    tally = Tally()
    one = _read_step("refined_by_rules", "chain")
    (out,) = one.apply(Document("d", "k", DOCSTRING), tally)
    assert out.text == REFINED and out.id == "d"
    assert (
        tally.counted["documents refined"] == 1 and tally.counted["entries"] == 2 and tally.counted["references"] == 1
    )


def test_code_stays_as_it_is_and_refining_twice_changes_no_more_sections():
    code = ">>> a = 1\n>>> a  # e.g. iff\n1\n\n    x = [i.e. for y in z]\n"
    assert refine(code).text.strip("\n") == code.strip("\n")
    again = refine(REFINED).text
    assert "Parameter f (Poly)" in again and again.count("Section:") == 0


def test_an_unfaithful_refinement_leaves_the_document_or_drops_it():
    text = "Title\n\nIt says iff twice: iff.\n"
    strict = {"faithfulness": {"longest": 1.0, "shortest": 0.9}}
    tally = Tally()
    (out,) = _read_step({"refined_by_rules": strict}, "c").apply(Document("d", "k", text), tally)
    assert out.text == text and tally.counted == {"kept as they were: too long": 1}
    assert not list(_read_step({"refined_by_rules": {**strict, "on_failure": "drop"}}, "c").apply(out, tally))
    assert tally.dropped == {"too long": 1}
    with pytest.raises(UserError, match="shortest: 2 is above longest"):
        _read_step({"refined_by_rules": {"faithfulness": {"shortest": 2.0}}}, "c")


def test_a_question_is_left_alone():
    one = Document("d", "k", "Question: iff?\nAnswer: that is, iff so\n", "Question: iff?\nAnswer:")
    (out,) = _read_step("refined_by_rules", "c").apply(one, Tally())
    assert out.text.startswith(one.question)
