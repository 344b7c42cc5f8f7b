"""The fused loss is the plain one, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from davinci.training import loss
from davinci.training.loss import linear_cross_entropy, token_losses

ROWS, HIDDEN, VOCAB = 23, 8, 40


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, HIDDEN, generator=generator)
    weight = torch.randn(VOCAB, HIDDEN, generator=generator)
    targets = torch.randint(0, VOCAB, (ROWS,), generator=generator)
    scale = (torch.rand(ROWS, generator=generator) > 0.3) / 16.0
    return hidden, weight, targets, scale


@pytest.mark.parametrize("chunk", [1, 7 * VOCAB, 1 << 24])
def test_it_equals_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", {"cpu": chunk})
    hidden, weight, targets, scale = inputs()
    mine = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    plain = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    total, losses = linear_cross_entropy(*mine, targets, scale)
    wanted = functional.cross_entropy(plain[0] @ plain[1].T, targets, reduction="none")
    torch.testing.assert_close(losses, wanted)
    torch.testing.assert_close(total, (wanted * scale).sum())
    assert not losses.requires_grad
    (3 * total).backward()
    (3 * (wanted * scale).sum()).backward()
    for got, expected in zip(mine, plain, strict=True):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(token_losses(hidden, weight, targets), wanted)


def test_a_target_with_scale_zero_teaches_nothing() -> None:
    hidden, weight, targets, scale = inputs()
    hidden.requires_grad_()
    total, _ = linear_cross_entropy(hidden, weight.requires_grad_(), targets, scale)
    total.backward()
    assert hidden.grad is not None
    assert torch.equal((hidden.grad == 0).all(dim=1), scale == 0)


def test_a_hopeless_target_has_a_finite_loss() -> None:
    hidden, weight = torch.full((1, 1), 1.0), torch.tensor([[0.0], [500.0]])
    _, losses = linear_cross_entropy(hidden, weight, torch.tensor([0]), torch.ones(1))
    assert losses.item() == 500.0


def test_bfloat16_hidden_states_keep_a_float32_loss() -> None:
    hidden, weight, targets, scale = inputs()
    rough = hidden.bfloat16().requires_grad_()
    total, losses = linear_cross_entropy(rough, weight.requires_grad_(), targets, scale)
    total.backward()
    assert losses.dtype == torch.float32 and weight.grad is not None and weight.grad.dtype == torch.float32
    torch.testing.assert_close(losses, token_losses(hidden, weight, targets), rtol=0.05, atol=0.05)
