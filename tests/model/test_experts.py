"""Experts against a loop over tokens, and the loss that balances them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_variants import SHAPE, VOCAB, tokens_of

from davinci.accounting.flops import train_flops_per_token
from davinci.accounting.shapes import active_parameters, parameters
from davinci.config import Model
from davinci.config.parsing import parse
from davinci.model.decoder import Decoder
from davinci.model.experts import Experts
from davinci.training.instruments import routing
from davinci.training.step import Objective, Outcome


def model_of(**experts) -> Model:
    return parse(Model, SHAPE | {"experts": {"count": 5, **experts}})


def made(model: Model) -> Experts:
    layer = Experts(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return layer.double()


@pytest.mark.parametrize("experts", [{}, {"chosen": 1}, {"renormalise": False, "shared": 2, "chosen": 3}], ids=str)
def test_it_computes_what_a_loop_over_tokens_computes(experts):
    model = model_of(**experts)
    layer = made(model)
    x = torch.randn(2, 7, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    got = layer(x)
    wanted = torch.zeros_like(x)
    falls = np.zeros((2, 5))
    shares: list[list[np.ndarray]] = [[], []]
    for row, column in np.ndindex(2, 7):
        token = x[row, column]
        probabilities = (layer.gate.weight.float() @ token.float()).softmax(0)
        chosen = probabilities.argsort(descending=True)[: model.experts.chosen]
        weights = probabilities[chosen] / (probabilities[chosen].sum() if model.experts.renormalise else 1)
        for weight, one in zip(weights, chosen, strict=True):
            gate, up = (layer.gate_up_proj[one] @ token).chunk(2)
            wanted[row, column] += weight.double() * (layer.down_proj[one] @ (gate * gate.sigmoid() * up))
            falls[row, one] += 1 / (7 * model.experts.chosen)
        if layer.shared_experts is not None:
            wanted[row, column] += layer.shared_experts(token)
        shares[row].append(probabilities.detach().numpy())
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)
    balance = 5 * (falls * np.mean(shares, axis=1)).sum(axis=1)  # arXiv 2412.19437, equations 17 to 20
    assert layer.auxiliary.tolist() == pytest.approx(balance.tolist(), rel=1e-5)
    assert layer.counts.tolist() == pytest.approx((falls.sum(axis=0) * 7 * model.experts.chosen).tolist())


def test_gradients_are_those_of_differences():
    """Of a smooth point: no choice changes within the step."""
    layer = made(parse(Model, SHAPE | {"experts": {"count": 3}, "hidden_size": 4, "mlp_intermediate_size": 6}))
    x = torch.randn(1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4), requires_grad=True)
    inside = (layer.gate_up_proj, layer.down_proj)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x).sum(), (x, *inside), eps=1e-5, atol=1e-3, rtol=1e-2)


def test_the_balance_is_trained_on_and_shown():
    model = parse(Model, SHAPE | {"experts": {"count": 5, "balance": 0.5}})
    decoder = Decoder(model, VOCAB)
    decoder.initialise(1)
    tokens, share = tokens_of(2, 9), torch.full((2, 8), 1 / 16)
    total, losses = Objective(decoder)(tokens, share)
    balance = float(torch.stack([one.auxiliary for one in decoder.experts]).mean().detach())
    assert float(total.detach()) == pytest.approx(float(losses.mean()) + 0.5 * balance, rel=1e-5)
    total.backward()
    assert all(one.gate.weight.grad.abs().sum() > 0 for one in decoder.experts)


def test_router_statistics_are_those_of_the_choices():
    """A layer where one of four experts has all choices, one where two share them."""
    loads, balance = torch.tensor([[8, 0, 0, 0], [4, 0, 4, 0]]), torch.tensor([4.0, 2.0])
    nothing = np.zeros(1)
    outcome = Outcome(torch.zeros(1), torch.zeros(()), nothing, nothing, routed=loads, balanced=balance)
    shown = routing(Decoder(parse(Model, SHAPE | {"experts": {"count": 4}}), VOCAB), outcome)
    wanted = {"load_max": (4, 2), "entropy": (0, 0.5), "unused": (0.75, 0.5), "balance": (4, 2)}
    assert shown.keys() == {f"router/{name}{of}" for name in wanted for of in ("", "/0", "/1")}
    for name, of_layers in wanted.items():
        assert tuple(shown[f"router/{name}/{layer}"] for layer in (0, 1)) == of_layers
        assert shown[f"router/{name}"] == sum(of_layers) / 2
    biased = routing(Decoder(model_of(bias_rate=0.1), VOCAB), outcome)
    assert biased.keys() - shown.keys() == {"router/bias_min", "router/bias_max"}
    assert routing(Decoder(parse(Model, SHAPE), VOCAB), replace(outcome, routed=None, balanced=None)) == {}


def test_only_the_active_parameters_cost():
    """Two of eight experts of half the width each: as dear as one perceptron, but for the router."""
    dense, sparse = parse(Model, SHAPE), parse(Model, SHAPE | {"experts": {"count": 8}})
    router = 3 * 24 * 8
    assert active_parameters(dense, VOCAB) == parameters(dense, VOCAB)
    assert active_parameters(sparse, VOCAB) == parameters(dense, VOCAB) + router
    assert parameters(sparse, VOCAB) == parameters(dense, VOCAB) + router + 3 * 6 * 3 * 24 * 20
    more = train_flops_per_token(sparse, VOCAB, 48) - train_flops_per_token(dense, VOCAB, 48)
    assert more == 6 * router


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_a_bias_decides_who_is_chosen_and_nothing_else(scores):
    """Against algorithm 1 of arXiv 2408.15664, token by token."""
    layer = made(model_of(scores=scores, bias_rate=0.25)).float()
    layer.bias.copy_(torch.tensor([0.5, -0.5, 0.0, 0.25, 0.0]))
    x = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))
    got, wanted, counts = layer(x), torch.zeros_like(x), [0] * 5
    for row, column in np.ndindex(3, 7):
        outputs = layer.gate.weight @ x[row, column]
        score = outputs.softmax(0) if scores == "softmax" else 1 / (1 + (-outputs).exp())
        chosen = sorted(range(5), key=lambda one, score=score: -float(score[one] + layer.bias[one]))[:2]
        for one in chosen:
            gate, up = (layer.gate_up_proj[one] @ x[row, column]).chunk(2)
            weight = score[one] / sum(score[other] for other in chosen)
            wanted[row, column] += weight * (layer.down_proj[one] @ (gate * gate.sigmoid() * up))
            counts[one] += 1
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert layer.counts.tolist() == counts
    before = layer.bias.tolist()
    layer.rebalance(layer.counts)
    moved = [0.25 * (1 if sum(counts) / 5 > one else -1 if sum(counts) / 5 < one else 0) for one in counts]
    assert layer.bias.tolist() == pytest.approx([b + m for b, m in zip(before, moved, strict=True)])
    assert "gate.e_score_correction_bias" in layer.state_dict()
    assert all("bias" not in name for name, _ in layer.named_parameters())


@torch.no_grad()
@pytest.mark.parametrize("rate", [0.0, 0.001])
def test_a_bias_balances_a_router_that_prefers_some(rate):
    layer = made(model_of(count=8, bias_rate=rate)).float()
    x = torch.randn(1, 512, 24, generator=torch.Generator().manual_seed(2))
    x[..., 0] = 3.0
    layer.gate.weight[:, 0] = torch.linspace(-1, 1, 8)
    loads = []
    for _ in range(800):
        layer(x)
        loads.append(float(layer.counts.max()) / 128)  # 512 tokens, 2 of 8 each
        layer.rebalance(layer.counts)
    assert loads[0] > 2
    assert loads[-1] < 1.25 if rate else loads[-1] == loads[0]
