"""A benchmark as question, options and answer, whichever protocol its task is of. No harness is imported.

A task that ranks choices says by itself what an item is; what others have is declared in item_sets.yaml, by data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from davinci.errors import UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CUES = ("Answer:", "A:")


class RowError(UserError):
    """A document that is no item; whoever knows says of which benchmark, and where it is from."""


@dataclass(frozen=True)
class Item:
    """One question. `answers` are the indices of the right choices; `rationale` is a worked way to them, or empty."""

    question: str
    choices: list[str]
    answers: tuple[int, ...]
    rationale: str = ""

    @property
    def letters(self) -> list[str]:
        return list(LETTERS[: len(self.choices)])


@dataclass(frozen=True)
class ItemSet:
    """How items are read from a data set's documents, each field as lm-eval's task files say it.

    `bare` says that the question is not yet put as one, and `listed` that it lists its options under letters.
    """

    question: Any
    choices: Any
    answer: Any
    rationale: Any = None
    description: str | None = None
    listed: bool = False
    bare: bool = False

    def item(self, document: Mapping[str, Any]) -> Item:
        """The item of one document.

        Raises:
            RowError: the answer is none of the choices.
        """
        choices = [str(choice) for choice in field(self.choices, document)]
        answer = field(self.answer, document)
        found = answer if isinstance(answer, list) else [answer]
        question = str(field(self.question, document))
        answers = []
        for one in found:
            index = _index(one, choices)
            if index is None:
                raise RowError(
                    f"the item {question[:60]!r} has answer {one!r}, which is none of its {len(choices)} choices nor "
                    "their indices"
                )
            answers.append(index)
        rationale = "" if self.rationale is None else str(field(self.rationale, document) or "")
        return Item(question, choices, tuple(answers), rationale)

    def stem(self, item: Item) -> str:
        """The question without the cue that asks for its answer."""
        text = item.question.rstrip()
        for cue in _CUES:
            text = text.removesuffix("\n" + cue)
        return f"Question: {text}" if self.bare else text


def of_benchmark(error: RowError, name: str, source: Path | None) -> UserError:
    """What is said of a row of the benchmark `name`, whose local files are in `source`."""
    return UserError(f"evaluation.benchmarks.{name}: {error}" + (f"; its rows are from {source}" if source else ""))


def _index(answer: Any, choices: list[str]) -> int | None:
    """Of a choice, from its text or its index; None of none."""
    if answer in choices:
        return choices.index(answer)
    return answer if isinstance(answer, int) and 0 <= answer < len(choices) else None


def item_set(config: Mapping[str, Any]) -> ItemSet | None:
    """How the items of a task are read; None where they have no options. `config` is lm-eval's, `include` resolved."""
    declared = _declared(str(config.get("dataset_path")))
    if declared is not None:
        return ItemSet(**declared, bare=not declared.get("listed", False))
    if config.get("custom_dataset") is not None:
        return ItemSet("context", "choices", "label")  # the embedded suite's own fields
    if config.get("doc_to_choice") is None:
        return None
    return ItemSet(config["doc_to_text"], config["doc_to_choice"], config["doc_to_target"])


@lru_cache
def _sets() -> dict[str, dict[str, Any]]:
    sets: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return sets


def _declared(data_set: str) -> dict[str, Any] | None:
    return next((fields for name, fields in _sets().items() if fnmatchcase(data_set, name)), None)


def field(spec: Any, document: Mapping[str, Any]) -> Any:
    """What lm-eval reads for `spec`: a function's value, a document's field, a rendered template, or a constant."""
    if callable(spec):
        return spec(document)
    if not isinstance(spec, str):
        return spec
    if spec in document:
        return document[spec]
    from lm_eval.utils import apply_template

    text = apply_template(spec, document)
    if text.isdigit():
        return int(text)
    if text[:1] == "[" and text[-1:] == "]":
        from ast import literal_eval

        try:
            return literal_eval(text)
        except (SyntaxError, ValueError):
            return text
    return text
