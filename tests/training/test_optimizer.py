"""AdamW as the paper has it: decoupled decay on matrices only, clipping, a state that can be saved."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from training_nodes import tiny_model, tiny_node

from davinci.data.batches import Batch
from davinci.model.decoder import Decoder
from davinci.training.optimizer import build, load_state_tensors, state_tensors
from davinci.training.step import Objective, Window, gradients, move

OPTIMIZER = tiny_node().optimizer


def model(seed: int = 0) -> Decoder:
    decoder = Decoder(tiny_model(), tiny_model().vocab_size)
    decoder.initialise(seed)
    return decoder


def batch(rows: int = 4, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    return Batch(
        generator.integers(0, 257, (rows, 33)), generator.random((rows, 32)) > 0.2, generator.integers(0, 2, rows)
    )


def test_steps_are_adamws_with_decay_on_matrices_only() -> None:
    """Against Algorithm 2 of arXiv 1711.05101 in float64."""
    decoder = model()
    adamw = build(decoder, OPTIMIZER)
    exact = {name: value.detach().double().clone() for name, value in decoder.named_parameters()}
    moments = {name: [torch.zeros_like(value), torch.zeros_like(value)] for name, value in exact.items()}
    b1, b2 = OPTIMIZER.beta1, OPTIMIZER.beta2
    for count, lr in enumerate((1e-3, 2e-3, 5e-4), start=1):
        gradients(Objective(decoder), batch(seed=count), 1e9)
        for name, parameter in decoder.named_parameters():
            assert parameter.grad is not None
            g, (m, v) = parameter.grad.double(), moments[name]
            m.mul_(b1).add_((1 - b1) * g)
            v.mul_(b2).add_((1 - b2) * g * g)
            decay = OPTIMIZER.weight_decay if parameter.ndim == 2 else 0.0
            unbiased = (v / (1 - b2**count)).sqrt() + OPTIMIZER.eps
            exact[name] -= lr * (m / (1 - b1**count) / unbiased + decay * exact[name])
        move(adamw, lr)
    for name, parameter in decoder.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), exact[name], rtol=1e-4, atol=2e-6)


def test_the_gradient_is_clipped_to_its_norm() -> None:
    decoder = model()
    free = gradients(Objective(decoder), batch(), 1e9)
    clipped = gradients(Objective(decoder), batch(), free.gradient_norm / 4)
    assert clipped.gradient_norm == free.gradient_norm
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in decoder.parameters() if p.grad is not None))
    assert norm == pytest.approx(free.gradient_norm / 4, rel=1e-4)


def test_loss_is_the_mean_over_targets_that_count_and_splits_by_domain() -> None:
    decoder, one = model(), batch()
    outcome = gradients(Objective(decoder), one, 1.0)
    with torch.no_grad():
        scores = decoder(torch.from_numpy(one.tokens[:, :-1]))
    losses = torch.nn.functional.cross_entropy(
        scores.flatten(0, 1), torch.from_numpy(one.tokens[:, 1:]).flatten(), reduction="none"
    ).view(4, 32)
    counted = losses[torch.from_numpy(one.loss_mask)]
    assert outcome.loss == pytest.approx(counted.mean().item(), rel=1e-5)
    window = Window()
    window.add(outcome, ["a", "b"])
    values = window.losses()
    assert values["loss"] == pytest.approx(outcome.loss, rel=1e-9)
    for index, name in enumerate("ab"):
        rows = one.domain == index
        wanted = losses[torch.from_numpy(rows)][torch.from_numpy(one.loss_mask[rows])].mean().item()
        assert values[f"loss/{name}"] == pytest.approx(wanted, rel=1e-5)


def test_a_batch_without_a_target_changes_no_loss() -> None:
    empty = Batch(batch().tokens, np.zeros((4, 32), dtype=bool), batch().domain)
    outcome = gradients(Objective(model()), empty, 1.0)
    assert (outcome.loss, outcome.gradient_norm) == (0.0, 0.0)
    window = Window()
    window.add(outcome, ["a", "b"])
    assert window.losses() == {}


def test_micro_batches_agree_to_rounding() -> None:
    """Another number of tokens at once gives the same gradient up to rounding."""
    whole, split = model(), model()
    one = gradients(Objective(whole), batch(rows=6), 1.0)
    two = gradients(Objective(split), batch(rows=6), 1.0, micro_tokens=64)
    np.testing.assert_allclose(one.nats, two.nats, rtol=1e-5)
    assert one.loss == pytest.approx(two.loss, rel=1e-6)
    for first, second in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-6)


def test_state_survives_a_round_trip() -> None:
    first = model()
    adamw = build(first, OPTIMIZER)
    assert state_tensors(first, adamw) == {}
    for seed in range(3):
        gradients(Objective(first), batch(seed=seed), 1.0)
        move(adamw, 1e-3)
    second = model()
    second.load_state_dict(first.state_dict())
    other = build(second, OPTIMIZER)
    load_state_tensors(second, other, state_tensors(first, adamw))
    for decoder, optimizer in ((first, adamw), (second, other)):
        gradients(Objective(decoder), batch(seed=9), 1.0)
        move(optimizer, 1e-3)
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
