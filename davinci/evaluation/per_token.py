"""The normalisation that lm-eval 0.4.13 lacks: a choice's log-likelihood divided by its tokens.

lm-eval's own are the sum (``acc``), by characters (``acc_norm``) and by bytes (``acc_bytes``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def offer_per_token(task: Any, lm: Any) -> None:
    """Let a multiple-choice task of lm-eval compute ``acc_tokens`` too, with the tokenizer of `lm`."""
    theirs = type(task).process_results

    def process_results(document: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
        values = np.array([value for value, _ in results])
        counts = token_counts(task, lm, document)
        best = int(np.argmax(values[: len(counts)] / counts))
        right = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
        if isinstance(right, str):
            right = task.doc_to_choice(document).index(right)
        return {
            **theirs(task, document, results),
            "acc_tokens": float(best in right if isinstance(right, list) else best == right),
        }

    task.process_results = process_results
    task._aggregation_list["acc_tokens"] = np.mean
    task._higher_is_better["acc_tokens"] = True


def token_counts(task: Any, lm: Any, document: Mapping[str, Any]) -> np.ndarray:
    """float64[choices]: tokens of each choice as the model reads it after its question; at least one."""
    choices = task.doc_to_choice(document)
    delimiter = task.config.target_delimiter
    if task.multiple_input:  # the choices end the context, the same text follows each
        pairs = [(context, f"{delimiter}{task.doc_to_target(document)}") for context in choices]
    else:
        context = task.doc_to_text(document)
        pairs = [(context, f"{delimiter}{choice}") for choice in choices]
    sizes = [len(lm._encode_pair(*pair)[1] if pair[0] else lm.tok_encode(pair[1])) for pair in pairs]
    return np.maximum(np.array(sizes, dtype=np.float64), 1.0)
