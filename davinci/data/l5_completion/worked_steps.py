"""Completion by a program: steps that a document leaves out, each checked before it is written. No model has a say."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import replace

from davinci.config.base import Positive, PositiveFloat
from davinci.data.documents import Document
from davinci.data.l5_completion import identities, sessions
from davinci.data.l5_completion.steps import worked_out
from davinci.data.operations import DocumentOperation, operation
from davinci.data.tally import Tally
from davinci.data.verification import NotArithmetic, arithmetic_fault, runs_as_written, value


@operation("worked_steps")
class WorkedSteps(DocumentOperation):
    """The interpreter sessions of a document, worked out in sentences that are added at its end, under the same id.

    Of each result: the steps of an arithmetic expression, one operation at a time (V(x): every equality holds exactly,
    and the last is the document's result); a result of algebra checked by putting numbers in (V(x): both sides agree
    exactly at three points or more); else what the result rests on (V(x): the session says so; see `sessions`).

    With `run`, the sessions are first run in the sandbox, and a document whose results do not come out so gets no
    steps: that needs its packages here, and what is built then depends on them. Documents that ask a question, or have
    no session, stay as they are.
    """

    level = "L5"

    most: Positive = 12
    """Sentences a document."""
    heading: str = "Worked steps:"
    run_sessions: bool = False
    seconds: PositiveFloat = 10.0

    def apply(self, document: Document, tally: Tally) -> Iterable[Document]:
        if document.question or ">>> " not in document.text:
            tally.count("documents without sessions")
            yield document
            return
        if self.run_sessions:
            fault = runs_as_written(document.text, setting="worked_steps.run_sessions", seconds=self.seconds)
            if fault is not None:
                tally.count(f"sessions not confirmed ({fault})")
                yield document
                return
        sentences = list(dict.fromkeys(self._sentences(document.text, tally)))[: self.most]
        if not sentences:
            tally.count("documents without steps")
            yield document
            return
        tally.count("documents completed")
        tally.count("steps written", len(sentences))
        yield replace(document, text="\n".join([document.text.rstrip("\n"), "", self.heading, "", *sentences]) + "\n")

    def _sentences(self, text: str, tally: Tally) -> Iterator[str]:
        for one in sessions.results(text):
            kind, sentence, holds = _made(one, text)
            tally.count(f"{kind}: {'accepted' if holds else 'rejected'} by V(x)")
            if holds:
                yield sentence


def _made(one: sessions.Result, text: str) -> tuple[str, str, bool]:
    """What is said of a result: its kind, the sentence, and whether V(x) accepts it."""
    if not one.grounds and (forms := worked_out(one.source)) is not None:
        sentence = " = ".join(forms) + "."
        return "arithmetic", sentence, arithmetic_fault(sentence) is None and _same(forms[-1], one.result)
    try:
        check = identities.checked(one.source, one.result, one.known)
    except identities.Refuted:
        return "algebra", "", False
    if check is not None:
        sentence = f"{one.sentence} {check}"
        return "algebra", sentence, arithmetic_fault(check) is None and sessions.supported(text, one)
    return "derivation", one.sentence, sessions.supported(text, one)


def _same(left: str, right: str) -> bool:
    try:
        return value(left) == value(ast.unparse(ast.parse(right, mode="eval")))
    except (NotArithmetic, SyntaxError, ValueError):
        return False
