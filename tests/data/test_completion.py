"""Level 5: what V(x) accepts, steps worked out, rejection sampling with a model."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_model import StubModel, completion

from davinci.data.documents import Document
from davinci.data.l5_completion.identities import Refuted, checked
from davinci.data.l5_completion.sessions import results, supported
from davinci.data.l5_completion.steps import worked_out
from davinci.data.operations import Places, _read_step
from davinci.data.tally import Tally
from davinci.data.verification import NotArithmetic, arithmetic_fault, equalities, final_number, runs_as_written, value
from davinci.errors import UserError


def trees(depth=3):
    number = st.integers(0, 30).map(str)
    return st.recursive(
        number,
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda three: f"({' '.join(three)})"),
        max_leaves=5,
    )


@given(trees())
def test_steps_keep_the_value_and_end_in_a_number(expression):
    forms = worked_out(expression)
    if forms is None:
        assert expression.isdigit()
        return
    assert {value(form) for form in forms} == {Fraction(eval(expression))}
    assert forms[-1].lstrip("-").isdigit() and arithmetic_fault(" = ".join(forms)) is None


def test_steps_are_one_operation_each():
    assert worked_out("2*3 + (4 - 1)**2") == ["2 * 3 + (4 - 1) ** 2", "6 + (4 - 1) ** 2", "6 + 3 ** 2", "6 + 9", "15"]
    assert worked_out("-(2 + 3)*0.5") == ["-(2 + 3) * 0.5", "-5 * 0.5", "-2.5"]
    for nothing in ("1/3", "7", "x + 1", "2 +", "2**1000", "1/0", "1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1"):
        assert worked_out(nothing) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("So 2 * 3 + 4 = 6 + 4 = 10. And 7 - 2 = 5.", None),
        ("Total: $1,200 + $300 = $1,500", None),
        ("12 × 3 = 36 apples", None),
        ("0.1 + 0.2 = 0.3", None),
        ("So 2 * 3 + 4 = 6 + 4 = 11.", "an equality does not hold"),
        ("We get 3 + 4 = 8", "an equality does not hold"),
        ("1/3 = 0.333", "an equality does not hold"),
        ("x = 3 and f(2) = 3", "nothing to check"),
        ("if a == 3 or b <= 4 = 5", "nothing to check"),
        ("9**9**9 = 1", "nothing to check"),
        ("", "nothing to check"),
    ],
)
def test_arithmetic_is_checked_exactly(text, fault):
    assert arithmetic_fault(text) == fault


def test_equalities_are_neighbours():
    assert list(equalities("1 + 1 = 2 = 4 / 2")) == [("1 + 1", "2"), ("2", "4 / 2")]
    assert arithmetic_fault("1 + 1 = 2", least=2) == "nothing to check"


@pytest.mark.parametrize("bad", ["__import__('os')", "2 if 1 else 3", "[1][0]", "True", "1e400", "'a' * 3", "10**30"])
def test_only_arithmetic_has_a_value(bad):
    with pytest.raises(NotArithmetic):
        value(bad)


def test_the_final_number():
    assert final_number("The answer is 1,200.") == 1200 and final_number("#### 3.5") == Fraction(7, 2)
    assert final_number(r"so \boxed{7}") == 7 and final_number("no number") is None


def test_sessions_and_programs_run_in_the_sandbox():
    quick = {"setting": "here", "seconds": 10.0}
    assert runs_as_written("Sum:\n\n>>> 1 + 1\n2\n", **quick) is None
    assert runs_as_written("Sum:\n\n>>> 1 + 1\n3\n", **quick) == "run: wrong"
    assert runs_as_written("```python\ndef f(): return 3\nassert f() == 3\n```", **quick) is None
    assert runs_as_written("```python\nassert 1 == 2\n```", **quick) == "run: wrong"
    assert runs_as_written("```python\nprint(1)\n```", **quick) == "nothing to check"
    assert runs_as_written(">>> a = 1\n", **quick) == "nothing to check"
    assert runs_as_written("Only words.", **quick) == "nothing to run"
    assert (
        runs_as_written(">>> open('/tmp/x', 'w').name\n'/tmp/x'\n", **quick) == "run: wrong"
    )  # its exception is no result


SESSION = """\
Graphs.

>>> G = Graph()
>>> G.add_edge(1, 2)
>>> H = G
>>> G.size()
1
>>> for n in G:
...     print(n)
1
2
>>> 2*3 + 4
10
>>> 2 + 2
5
>>> e = x**2 - 1
>>> factor(e)
(x - 1)*(x + 1)
>>> expand((x + 1)**2)
x**2 + 2*x + 2
"""


def test_results_rest_on_what_made_their_names():
    found = {one.source: one for one in results(SESSION)}
    assert found["G.size()"].grounds == ("G = Graph()", "G.add_edge(1, 2)")
    assert found["G.size()"].sentence == "After G = Graph(); G.add_edge(1, 2), G.size() gives 1."
    assert found["factor(e)"].known["e"] == "x**2 - 1"
    assert all(supported(SESSION, one) for one in found.values())


def test_a_result_that_the_session_does_not_support_is_rejected():
    (one,) = [one for one in results(SESSION) if one.source == "G.size()"]
    assert not supported(SESSION.replace(">>> H = G\n", ">>> G = Other()\n"), one)
    assert not supported(SESSION.replace("G.size()\n1", "G.size()\n2"), one)
    assert not supported(SESSION.replace(">>> G.add_edge(1, 2)\n", ""), one)


def test_algebra_is_checked_at_points():
    said = checked("expand((x + y)**2)", "x**2 + 2*x*y + y**2", {})
    assert said is not None and "x = 2 and y = 3: (2 + 3) ** 2 = 5 ** 2 = 25, and" in said
    assert arithmetic_fault(said, least=3) is None
    with pytest.raises(Refuted):
        checked("expand((x + y)**2)", "x**2 + x*y + y**2", {})
    assert checked("cancel(e)", "x + 1", {"e": "(x**2 - 1)/(x - 1)"}) is not None
    for unknown in (("diff(x**2, x)", "2*x"), ("expand(sin(x))", "sin(x)"), ("expand(f)", "f"), ("factor(4)", "4")):
        assert checked(*unknown, {}) is None


def test_worked_steps_are_added_and_only_those_that_hold():
    tally = Tally()
    one = _read_step("worked_steps", "c")
    (out,) = one.apply(Document("d", "k", SESSION), tally)
    assert out.id == "d" and out.text.startswith(SESSION)
    added = out.text[len(SESSION) :]
    assert "2 * 3 + 4 = 6 + 4 = 10." in added and "2 + 2 =" not in added  # the document's 5 is wrong
    assert "Check with x = 2: 2 ** 2 - 1 = 4 - 1 = 3, and (2 - 1) * (2 + 1) = " in added
    assert "2*x + 2" not in added and tally.counted["algebra: rejected by V(x)"] == 1  # it should end in 1
    assert tally.counted["arithmetic: rejected by V(x)"] == 1 == tally.counted["arithmetic: accepted by V(x)"]
    assert tally.counted["documents completed"] == 1
    plain = Document("p", "k", "No session.\n")
    assert list(one.apply(plain, tally)) == [plain]


def test_sessions_may_be_run_first():
    one = _read_step({"worked_steps": {"run_sessions": True}}, "c")
    good, bad = Document("g", "k", ">>> 2*3 + 4\n10\n"), Document("b", "k", ">>> 2*3 + 4\n10\n>>> 1\n2\n")
    tally = Tally()
    assert [len(next(iter(one.apply(doc, tally))).text) > len(doc.text) for doc in (good, bad)] == [True, False]
    assert tally.counted["sessions not confirmed (run: wrong)"] == 1


def completed(server, folder, documents, prompt, **parameters):
    one = _read_step(
        {"completed_by_llm": {"endpoint": server.endpoint, "model": "stub", "prompt": prompt, "first_wait_s": 0.01}
         | parameters},
        "c",
    ).located(Places(*[folder] * 4))  # fmt: skip
    tally = Tally()
    places = Places(folder / "step", folder / "cache", folder, folder)
    return list(one.run(iter(documents), tally, places)), tally


WRONG, RIGHT = "<steps>\n3 * 4 = 13\nAnswer: 13\n</steps>", "<steps>\n3 * 4 = 12\n12 + 1 = 13\nAnswer: 13\n</steps>"


def test_of_several_samples_the_one_that_holds_is_kept(tmp_path):
    def answer(body, index):
        return 200, {}, completion(RIGHT if body["seed"] == 2 else WRONG)

    task = Document("d", "k", "Three boxes of four apples and one more.\n")
    with StubModel(answer) as server:
        out, tally = completed(server, tmp_path, [task], "complete_reasoning", verifier="arithmetic", samples=4)
        assert out[0].text == f"{task.text}\n3 * 4 = 12\n12 + 1 = 13\nAnswer: 13\n" and out[0].id == "d"
        assert tally.counted["rejected: V(x): an equality does not hold"] == 2 and len(server.requests) == 3
        out, tally = completed(
            server, tmp_path, [task], "complete_reasoning", verifier="arithmetic", samples=2, on_failure="drop"
        )
        assert not out and tally.dropped == {"V(x): an equality does not hold": 1}


def test_the_final_number_must_be_the_last_result(tmp_path):
    with StubModel(lambda body, index: (200, {}, completion(RIGHT.replace("Answer: 13", "Answer: 14")))) as server:
        task = Document("d", "k", "Apples.\n")
        out, tally = completed(server, tmp_path, [task], "complete_reasoning", verifier="arithmetic", samples=1)
    assert out == [task] and tally.counted["rejected: V(x): the final number is not the last result"] == 1


def test_questions_become_documents_of_their_own(tmp_path):
    def answer(body, index):
        said = f"<qa>\nQuestion: What is {body['seed']} + 1?\nAnswer: {body['seed']} + 1 = {body['seed'] + 1}\n</qa>"
        return 200, {}, completion(said)

    with StubModel(answer) as server:
        task = Document("d", "file", "Sums.\n", origin={"url": "u"})
        out, _ = completed(
            server, tmp_path, [task], "synthesise_qa", verifier="arithmetic", output="questions", wanted_answers=2
        )
    assert [one.id for one in out] == ["d#0", "d#1"] and {one.split_key for one in out} == {"file"}
    assert out[1].text == "Question: What is 1 + 1?\nAnswer: 1 + 1 = 2\n" and out[1].question.endswith("Answer:")
    assert out[1].fields["answer"] == "1 + 1 = 2" and out[0].origin == {"url": "u"}


def test_code_answers_are_run(tmp_path):
    prompt = tmp_path / "mine.yaml"
    prompt.write_text("name: mine\nversion: 1\nuser: 'Write a session on {text}'\nanswer: (.*)\n")

    def answer(body, index):
        return 200, {}, completion(f"```python\n>>> 2 + 2\n{3 + body['seed']}\n```")

    with StubModel(answer) as server:
        out, tally = completed(server, tmp_path, [Document("d", "k", "sums")], "mine.yaml", verifier="code", samples=2)
    assert out[0].text == "sums\n\n```python\n>>> 2 + 2\n4\n```\n" and tally.counted["rejected: V(x): run: wrong"] == 1


def test_parameters_that_cannot_be_are_refused():
    base = {"endpoint": "http://a/v1", "model": "m", "prompt": "synthesise_qa", "verifier": "none"}
    with pytest.raises(UserError, match="wanted_answers: 5 cannot come of samples, 4"):
        _read_step({"completed_by_llm": base | {"wanted_answers": 5}}, "c")
    with pytest.raises(UserError, match="with output append it is 1"):
        _read_step({"completed_by_llm": base | {"wanted_answers": 2}}, "c")
    with pytest.raises(UserError, match="no prompt 'nothing'"):
        _read_step({"completed_by_llm": base | {"prompt": "nothing"}}, "c").located(Places(*[Path()] * 4))
