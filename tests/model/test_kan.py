"""KAN perceptrons against a loop over their functions."""

from __future__ import annotations

import math

import pytest
import torch
from test_variants import SHAPE, VOCAB

from davinci.accounting.flops import train_flops_per_token
from davinci.config import Model
from davinci.config.parsing import parse
from davinci.model.kan import Kan, KanLayer


def made(inputs: int, outputs: int, centres: int) -> KanLayer:
    layer = KanLayer(inputs, outputs, centres, 1e-6).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return layer


def test_it_computes_what_a_loop_over_functions_computes() -> None:
    layer = made(5, 3, 4)
    x = 3 * torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    got = layer(x).detach()
    base, bumps = layer.base.weight.tolist(), layer.bumps.weight.tolist()
    centres, apart = [-2, -2 / 3, 2 / 3, 2], 4 / 3
    for row, place, output in ((0, 0, 0), (1, 4, 2), (0, 5, 1)):
        token = x[row, place].tolist()
        mean = sum(token) / 5
        deviation = math.sqrt(sum((one - mean) ** 2 for one in token) / 5 + 1e-6)
        wanted = 0.0
        for j, value in enumerate(token):
            wanted += base[output][j] * value / (1 + math.exp(-value))
            for k, centre in enumerate(centres):
                height = math.exp(-((((value - mean) / deviation - centre) / apart) ** 2))
                wanted += bumps[output][4 * j + k] * height
        assert float(got[row, place, output]) == pytest.approx(wanted, rel=1e-5)


def test_gradients_are_those_of_differences() -> None:
    layer = made(3, 2, 3)
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))


def test_what_it_costs_is_what_its_matrices_cost() -> None:
    gated, kan = parse(Model, SHAPE), parse(Model, SHAPE | {"mlp": {"kind": "kan", "centres": 5}})
    each = sum(parameter.numel() for parameter in Kan(kan).parameters())
    assert each == 12 * 24 * 40
    more = train_flops_per_token(kan, VOCAB, 48) - train_flops_per_token(gated, VOCAB, 48)
    assert more == 6 * 3 * (each - 3 * 24 * 40)
