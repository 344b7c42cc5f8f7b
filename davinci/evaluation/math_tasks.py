"""MATH with the four examples of Minerva (arXiv 2206.14858), scored without a LaTeX parser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from davinci.evaluation.lm_eval_source import definitions

_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(-?\d+)\}\{(-?\d+)\}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:/\d+)?|-?\.\d+")


@lru_cache
def _theirs() -> Mapping[str, Any]:
    return definitions("minerva_math/utils.py")


def doc_to_text(document: Mapping[str, Any]) -> str:
    """The problem as lm-eval asks it."""
    return str(_theirs()["doc_to_text"](document))


def examples() -> list[dict[str, Any]]:
    """Minerva's four worked problems, as lm-eval has them."""
    found: list[dict[str, Any]] = _theirs()["list_fewshot_samples"]()
    return found


def process_docs(data: Any) -> Any:
    """Documents with the normalised answer that stands in the last box of their solution."""

    def answered(document: dict[str, Any]) -> dict[str, Any]:
        boxed = _theirs()["last_boxed_only_string"](document["solution"])
        answer = "" if boxed is None else _theirs()["normalize_final_answer"](_theirs()["remove_boxed"](boxed))
        return {"problem": document["problem"], "solution": document["solution"], "answer": answer}

    return data.map(answered)


def process_results(document: Mapping[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the answer after "Final Answer: The final answer is" is the document's."""
    written = _theirs()["normalize_final_answer"](_theirs()["get_unnormalized_answer"](results[0]))
    return {"exact_match": float(bool(written) and same(written, document["answer"]))}


def same(one: str, other: str) -> bool:
    """Whether two normalised answers are the same text or the same rational number."""
    return one == other or (value(one) is not None and value(one) == value(other))


def value(answer: str) -> Fraction | None:
    r"""The number of ``3``, ``-0.5``, ``1/2``, ``\frac{1}{2}``, ``$12,000$``, ``25\%``; None of anything else."""
    text = answer.strip("$").replace("\\%", "").replace("%", "").replace(" ", "")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = _FRACTION.sub(r"\1\2/\3", text).replace("--", "")
    try:
        return Fraction(text) if _NUMBER.fullmatch(text) else None
    except ZeroDivisionError:
        return None
