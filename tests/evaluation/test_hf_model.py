"""Pairs of context and continuation as others' tokenizers cut them."""

from __future__ import annotations

import pytest


def test_a_continuation_merged_into_its_context_is_still_scored() -> None:
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    from davinci.evaluation.hf_model import ExternalLM

    tokens = {"a(": [1], "a()": [2], ")": [3], "a(b": [1, 4], "b": [4]}
    model = ExternalLM.__new__(ExternalLM)
    model.backend = "causal"
    model.tok_encode = lambda text, **_: tokens[text]  # type: ignore[method-assign]
    assert model._encode_pair("a(", "b") == ([1], [4]), "as HFLM does"
    assert model._encode_pair("a(", ")") == ([1], [3]), "all of it was merged"
