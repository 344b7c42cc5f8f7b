"""How blocks are computed changes no result: recomputed activations not a bit, compilation only its rounding."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from training_nodes import tiny_model

from davinci.config import Execution, parse
from davinci.data.batches import Batch
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.training.regions import prepare
from davinci.training.step import Objective, Outcome, gradients


def batch() -> Batch:
    generator = np.random.default_rng(0)
    return Batch(generator.integers(0, 257, (6, 33)), generator.random((6, 32)) > 0.2, np.zeros(6, dtype=np.int64))


def computed(precision: str = "float32", **how: object) -> tuple[Outcome, list[torch.Tensor]]:
    model = tiny_model(precision=precision)
    decoder = Decoder(model, model.vocab_size)
    decoder.initialise(0)
    execution = parse(Execution, how)
    prepare(decoder, execution)
    outcome = gradients(Objective(decoder), batch(), 1.0, micro_tokens=execution.micro_tokens)
    return outcome, [one.grad for one in decoder.parameters() if one.grad is not None]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["full", "selective"])
def test_recomputed_activations_give_the_same_bits(kind: str, precision: str) -> None:
    plain, wanted = computed(precision)
    outcome, found = computed(precision, activation_checkpointing=kind)
    assert outcome.loss == plain.loss and outcome.gradient_norm == plain.gradient_norm
    assert all(torch.equal(one, two) for one, two in zip(found, wanted, strict=True))


@pytest.mark.parametrize("size", [32, 64, 1 << 20])
def test_micro_batches_change_rounding_alone(size: int) -> None:
    plain, wanted = computed()
    outcome, found = computed(micro_tokens=size)
    assert outcome.loss == pytest.approx(plain.loss, rel=1e-6)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("kind", ["none", "full", "selective"])
def test_compiled_blocks_agree_to_rounding(kind: str) -> None:
    plain, wanted = computed()
    outcome, found = computed(compile=True, activation_checkpointing=kind)
    assert outcome.loss == pytest.approx(plain.loss, rel=1e-5)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)


def test_compiling_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"cluster\.compile=true needs a C\+\+ compiler"):
        computed(compile=True)
