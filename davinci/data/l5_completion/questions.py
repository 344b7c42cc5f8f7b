"""Question-answer pairs that packages already hold: calculations in doctests, purposes in docstrings."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar

from davinci.config import Level
from davinci.data.documents import Document
from davinci.data.l0_acquisition.python_source import docstrings
from davinci.data.l1_normalisation.plain_text import normalise
from davinci.data.l1_normalisation.restructured_text import rst_to_text
from davinci.data.operations import Corpus, CorpusOperation, DocumentOperation, Places, operation
from davinci.data.tally import Tally
from davinci.store import read_json, write_json

ANSWER = "Answer:"
_LONGEST_EXPRESSION = 100
_LONGEST_RESULT = 80
_LONGEST_SENTENCE = 240
_NAMES = {"sympy": "SymPy", "mpmath": "mpmath", "networkx": "NetworkX", "django": "Django", "sqlalchemy": "SQLAlchemy"}


def asked(identity: str, key: str, question: str, answer: str, **fields: str | int) -> Document:
    """A question-answer document. The question part of its text ends after ``Answer:``."""
    prompt = f"Question: {question}\n{ANSWER}"
    answer = answer.strip()
    return Document(identity, key, f"{prompt} {answer}\n", prompt, {"question": question, "answer": answer, **fields})


class _Questions(DocumentOperation):
    """Questions that the docstrings of a Python file of a package answer."""

    level: ClassVar[Level] = "L5"

    def _asked(
        self, document: Document, pairs: Callable[[str, str, str, str], Iterator[tuple[str, str]]]
    ) -> Iterator[Document]:
        package, path = str(document.origin["package"]), str(document.origin["file"])
        number = 0
        for one in docstrings(path, document.text):
            for question, answer in pairs(_NAMES.get(package, package), one.name, one.call, one.text):
                made = asked(f"{package}:{one.name}:{number}", document.split_key, question, answer)
                yield replace(made, origin=document.origin)
                number += 1


@operation("doctest_questions")
class DoctestQuestions(_Questions):
    """What an expression of a doctest gives: one document an example with a result of one line."""

    def apply(self, document: Document, tally: Tally) -> Iterator[Document]:
        return self._asked(document, _doctests)


@operation("purpose_questions")
class PurposeQuestions(_Questions):
    """What a function or class does: the first sentence of its docstring."""

    def apply(self, document: Document, tally: Tally) -> Iterator[Document]:
        return self._asked(document, _purposes)


@operation("distinct_questions")
class DistinctQuestions(CorpusOperation):
    """One document a question of a package: the first that answers it, its id numbered anew."""

    level: ClassVar[Level] = "L5"

    def prepare(self, corpus: Corpus, places: Places) -> None:
        for source, parts in corpus.map(_questions).items():
            seen: dict[str, set[str]] = {}
            names = {}
            for identity, question in (row for part in parts for row in part):
                package, name, _ = identity.split(":")
                known = seen.setdefault(package, set())
                if question not in known:
                    names[identity] = f"{package}:{name}:{len(known)}"
                    known.add(question)
            write_json(places.step / f"{source}.json", names)

    def run(self, documents: Iterator[Document], tally: Tally, places: Places, source: str) -> Iterator[Document]:
        names = read_json(places.step / f"{source}.json")
        for one in documents:
            if one.id in names:
                yield replace(one, id=names[one.id])
            else:
                tally.drop(one, "asked before")


def _questions(documents: Iterator[Document]) -> list[tuple[str, str]]:
    return [(one.id, one.question) for one in documents]


def _doctests(package: str, name: str, call: str, text: str) -> Iterator[tuple[str, str]]:
    try:
        examples = doctest.DocTestParser().get_examples(text)
    except ValueError:  # a docstring whose examples are not indented as doctest wants
        return
    setup: dict[str, str] = {}  # the last assignment of each name, oldest first
    for example in examples:
        source, result = example.source.strip(), example.want.strip()
        source = re.sub(r"\s+#.*", "", source)
        if not result:
            target = source.partition("=")[0].strip()
            setup.pop(target, None)
            setup[target] = source
        elif (
            "\n" not in source + result
            and len(source) <= _LONGEST_EXPRESSION
            and len(result) <= _LONGEST_RESULT
            and not any(mark in result for mark in ("Traceback", "...", "<"))
        ):
            needed = [line for line in list(setup.values())[-4:] if _assigns_name_in(line, source)]
            given = f" after `{'; '.join(needed)}`" if needed else ""
            yield normalise(f"In {package}, what does `{source}` give{given}?").strip(), normalise(result).strip()


def _assigns_name_in(line: str, source: str) -> bool:
    target, equals, _ = line.partition("=")
    names = re.findall(r"\w+", target)
    return bool(equals) and "\n" not in line and len(line) <= 60 and bool(set(names) & set(re.findall(r"\w+", source)))


def _purposes(package: str, name: str, call: str, text: str) -> Iterator[tuple[str, str]]:
    first = " ".join(rst_to_text(text).split("\n\n")[0].split())
    sentence = re.split(r"(?<=[a-z\])]\.)\s+(?=[A-Z])", first)[0]
    if call and sentence.endswith(".") and 20 <= len(sentence) <= _LONGEST_SENTENCE and ">>>" not in sentence:
        yield f"What does `{call}` do?", sentence
