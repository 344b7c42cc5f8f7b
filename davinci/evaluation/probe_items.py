"""Probe items: a context, choices and which is right, tagged with the capability they ask for.

The embedded set is made by `probe_makers` and `probe_set`; a set of one's own is a JSONL file (docs/instruments.md), a
line an item: ``id``, ``capability``, ``context``, and either ``choices`` with ``answer`` (the right one, or its index
from 0) or ``target`` (the right one) with ``foils``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from davinci.config import Frozen, Run, parse
from davinci.errors import UserError
from davinci.store import file_digest

Text = Annotated[str, Field(min_length=1)]


class Item(Frozen):
    """One question: `choices` are continuations of `context`, of which ``choices[answer]`` is right."""

    id: str
    capability: str
    context: str
    choices: tuple[str, ...]
    answer: int


class _Line(Frozen):
    """A line of a JSONL file."""

    id: str | int
    capability: Annotated[str, Field(pattern=r"^[\w][\w .+-]{0,47}$")]
    context: str
    choices: Annotated[tuple[Text, ...], Field(min_length=2)] | None = None
    answer: int | str | None = None
    target: Text | None = None
    foils: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _is_one_question(self) -> Self:
        if self.choices is None:
            if self.target is None or self.foils is None or self.answer is not None:
                raise ValueError("choices: give choices and answer, or target and foils")
        elif self.target is not None or self.foils is not None:
            raise ValueError("target: give choices and answer, or target and foils, not both")
        elif isinstance(self.answer, str):
            if self.answer not in self.choices:
                raise ValueError(f"answer: {self.answer!r} is none of the choices")
        elif self.answer is None or not 0 <= self.answer < len(self.choices):
            raise ValueError(
                f"answer: one of the choices, or an index from 0 to {len(self.choices) - 1} (got {self.answer})"
            )
        if len(set(self._all)) < len(self._all):
            raise ValueError("choices: two are the same")
        return self

    @property
    def _all(self) -> tuple[str, ...]:
        return self.choices if self.choices is not None else (self.target or "", *(self.foils or ()))

    def item(self) -> Item:
        right = 0 if self.choices is None else self.answer
        if isinstance(right, str):
            right = self._all.index(right)
        return Item(
            id=str(self.id),
            capability=self.capability,
            context=self.context,
            choices=self._all,
            answer=right or 0,
        )


def read_items(path: Path) -> list[Item]:
    """The items of a JSONL file, blank lines left out.

    Raises:
        UserError: naming file and line of the first that is no item, or whose id another one has.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise UserError(f"{path}: cannot be read ({reason})") from None
    items: list[Item] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            data = json.loads(line)
        except ValueError as error:
            raise UserError(f"{place}: not JSON ({error})") from None
        if not isinstance(data, dict):
            raise UserError(f"{place}: a JSON object with id, capability, context and choices is needed")
        item = parse(_Line, data, where=lambda key, place=place: place).item()  # type: ignore[misc]
        if item.id in seen:
            raise UserError(f"{place}: id: {item.id!r} is that of line {seen[item.id]} too")
        seen[item.id] = number
        items.append(item)
    if not items:
        raise UserError(f"{path}: has no items")
    return items


def write_items(items: Iterable[Item]) -> str:
    """The items as the text of a JSONL file."""
    return "".join(json.dumps(item.model_dump(mode="json"), ensure_ascii=False) + "\n" for item in items)


def with_digest(run: Run) -> Run:
    """`run`, its file of probes read and named by its content, so that a plan asks for these very items.

    Raises:
        UserError: the file cannot be read, or a line of it is no item.
    """
    probes = run.evaluation.probes
    if probes is None or probes.file is None:
        return run
    try:
        read_items(Path(probes.file))
    except UserError as error:
        raise UserError(f"evaluation.probes.file: {error}") from None
    probes = probes.model_copy(update={"digest": file_digest(Path(probes.file))})
    return run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"probes": probes})})
