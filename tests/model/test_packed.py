"""A weight laid out for the processor multiplies as it did before, and so does one that cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from davinci.model import packed
from davinci.model.packed import Product


@pytest.mark.parametrize("can_pack", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_product_is_the_projections(can_pack: bool, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_pack:
        monkeypatch.setattr(packed, "_can_pack", lambda: False)
    torch.manual_seed(3)
    parts = [nn.Linear(40, width, bias=bias) for width in (24, 8, 8)]
    product = Product(parts, torch.float32)
    for rows in (1, 2, 3, 4, 5, 33):
        x = torch.randn(rows, 40)
        torch.testing.assert_close(product(x), torch.cat([part(x) for part in parts], dim=-1), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_other_precisions_are_left_as_they_are() -> None:
    weight, x = torch.randn(6, 10), torch.randn(2, 10)
    got = Product([weight], torch.bfloat16)(x.bfloat16())
    assert torch.equal(got, nn.functional.linear(x.bfloat16(), weight.bfloat16()))
