"""Question-answer pairs that packages already hold: calculations in doctests, purposes in docstrings."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable, Iterator

from davinci.data.archives import Archive
from davinci.data.documents import Document
from davinci.data.extraction import package_docstrings, split_key
from davinci.data.markup import normalise, rst_to_text

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


def calculations(archive: Archive) -> list[Document]:
    """What an expression of a doctest gives: one document an example with a result of one line."""
    return _distinct(archive, _doctests)


def docstring_purposes(archive: Archive) -> list[Document]:
    """What a function or class does: the first sentence of its docstring."""
    return _distinct(archive, _purposes)


def _distinct(archive: Archive, pairs: Callable[[str, str, str, str], Iterator[tuple[str, str]]]) -> list[Document]:
    """One document a question; the first file (in order of path) that answers it keeps it."""
    documents: dict[str, Document] = {}
    for path, found in package_docstrings(archive).items():
        for one in found:
            for question, answer in pairs(_NAMES[archive.pin.name], one.name, one.call, one.text):
                if question not in documents:
                    key = split_key(archive, path)
                    identity = f"{archive.pin.name}:{one.name}:{len(documents)}"
                    documents[question] = asked(identity, key, question, answer)
    return list(documents.values())


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
