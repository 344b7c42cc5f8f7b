"""Completion by a language model, with rejection sampling: of several answers those are kept that V(x) accepts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from pydantic import model_validator

from davinci.config.base import Positive, PositiveFloat
from davinci.data.documents import Document
from davinci.data.llm.operation import AsksModel
from davinci.data.operations import operation
from davinci.data.tally import Tally
from davinci.data.verification import NotArithmetic, arithmetic_fault, equalities, final_number, runs_as_written, value

QUESTION, ANSWER = "Question:", "Answer:"


@operation("completed_by_llm")
class CompletedByLlm(AsksModel):
    """What a document leaves implicit, written by a model: its reasoning, or a question about it with the answer.

    Up to `samples` answers are asked for, until `wanted_answers` of them are accepted by V(x):

    - ``arithmetic``: the answer states at least `least` equalities between numbers, all of them hold exactly, and where
      it names a final number (``Answer: 12``) that is the value of the last equality;
    - ``code``: the answer holds a session with results, or a program with assertions, that runs in the sandbox and
      gives what it says;
    - ``none``: nothing is checked (said so in the card).

    With `output` ``append`` the accepted answer follows the document's text, under its id. With ``questions`` it must
    have the form ``Question: … Answer: …``, and each becomes a document of its own (id ``DOCUMENT#0``, …) that is held
    out or not with the document it came from; the document itself goes.
    """

    level = "L5"

    verifier: Literal["arithmetic", "code", "none"]
    output: Literal["append", "questions"] = "append"
    samples: Positive = 4
    temperature: PositiveFloat = 0.7
    wanted_answers: Positive = 1
    least: Positive = 1
    seconds: PositiveFloat = 10.0

    @model_validator(mode="after")
    def _enough_samples(self) -> CompletedByLlm:
        if self.wanted_answers > self.samples:
            raise ValueError(f"wanted_answers: {self.wanted_answers} cannot come of samples, {self.samples}")
        if self.output == "append" and self.wanted_answers > 1:
            raise ValueError("wanted_answers: with output append it is 1")
        return self

    @property
    def wanted(self) -> int:
        return self.wanted_answers

    def reject(self, document: Document, answer: str) -> str | None:
        if self.output == "questions" and _parts(answer) is None:
            return "no question with an answer"
        fault = self._fault(answer)
        return None if fault is None else f"V(x): {fault}"

    def accept(self, document: Document, answers: list[str], tally: Tally) -> Iterable[Document]:
        if self.output == "append":
            yield replace(document, text=f"{document.text.rstrip()}\n\n{answers[0]}\n")
            return
        for place, answer in enumerate(answers):
            parts = _parts(answer)
            assert parts is not None  # `reject` looked
            question, reply = parts
            asks = f"{QUESTION} {question}\n{ANSWER}"
            yield Document(
                f"{document.id}#{place}",
                document.split_key,
                f"{asks} {reply}\n",
                asks,
                {"question": question, "answer": reply},
                document.origin,
            )

    def _fault(self, answer: str) -> str | None:
        if self.verifier == "arithmetic":
            return arithmetic_fault(answer, self.least) or _wrong_end(answer)
        if self.verifier == "code":
            return runs_as_written(answer, setting="completed_by_llm.verifier", seconds=self.seconds, least=self.least)
        return None


def _parts(answer: str) -> tuple[str, str] | None:
    """The question and the answer of a text of that form."""
    before, asked, rest = answer.partition(QUESTION)
    question, found, reply = rest.partition(ANSWER)
    if not (asked and found and question.strip() and reply.strip()) or before.strip():
        return None
    return " ".join(question.split()), reply.strip()


def _wrong_end(answer: str) -> str | None:
    """Why the number that an answer ends with does not follow from its last equality."""
    stated = final_number(answer)
    if stated is None:
        return None
    for _, right in reversed(list(equalities(answer))):
        try:
            return None if value(right) == stated else "the final number is not the last result"
        except NotArithmetic:
            continue
    return None
