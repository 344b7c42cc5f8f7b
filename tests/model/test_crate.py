"""CRATE's two halves against its equations, and the block that they make."""

from __future__ import annotations

import math

import torch
from test_variants import SHAPE, VOCAB, decoder, tokens_of
from torch import Tensor

from davinci.accounting.flops import train_flops_per_token
from davinci.accounting.shapes import active_parameters, parameters
from davinci.config import Model
from davinci.config.parsing import parse
from davinci.model.attention import Scene
from davinci.model.crate import Ista, SubspaceAttention

CRATE = {"attention": {"kind": "subspace"}, "mlp": {"kind": "ista"}, "positions": {"rotary": 0.0}}


def crate(**changes: int) -> Model:
    return parse(Model, SHAPE | CRATE | changes)


def still(length: int) -> Scene:
    """Nothing turns."""
    return Scene(torch.zeros(length, 1, 0), torch.zeros(length, 1, 0), None, None)


def drawn(*size: int, seed: int = 2) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def attended(x: Tensor, subspaces: Tensor, output: Tensor, heads: int) -> Tensor:
    """MSSA of x [T, H], token by token and head by head."""
    found = torch.zeros(len(x), len(subspaces), dtype=x.dtype)
    size = len(subspaces) // heads
    for head in range(heads):
        rows = slice(head * size, head * size + size)
        codes = subspaces[rows] @ x.T  # U_k^T X, [D, T]
        for t in range(len(x)):
            weights = (codes[:, : t + 1].T @ codes[:, t] / math.sqrt(size)).softmax(0)
            found[t, rows] = codes[:, : t + 1] @ weights
    return found @ output.T


def sparsified(x: Tensor, dictionary: Tensor) -> Tensor:
    return torch.stack([(z + 0.1 * dictionary.T @ (z - dictionary @ z) - 0.01).clamp(min=0) for z in x])


def normalised(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-6).sqrt() * weight


def test_a_model_computes_what_the_equations_say() -> None:
    """Z' = Z + MSSA(norm(Z)), Z = ISTA(norm(Z')): nothing is added to the latter."""
    model, tokens = decoder(CRATE).double(), tokens_of(1, 9)
    weights = {name: one.detach() for name, one in model.named_parameters()}
    x = weights["model.embed_tokens.weight"][tokens[0]]
    for layer in range(3):
        mine = {
            name.split(".", 3)[3]: one for name, one in weights.items() if name.startswith(f"model.layers.{layer}.")
        }
        before = normalised(x, mine["input_layernorm.weight"])
        x = x + attended(before, mine["self_attn.qkv_proj.weight"], mine["self_attn.o_proj.weight"], 4)
        x = sparsified(normalised(x, mine["post_attention_layernorm.weight"]), mine["mlp.dictionary"])
        assert 0.05 < float((x == 0).double().mean()) < 0.95
    wanted = normalised(x, weights["model.norm.weight"])
    torch.testing.assert_close(model.hidden(tokens)[0].double(), wanted, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_differences() -> None:
    small = crate(hidden_size=4, attention_heads=2, kv_heads=1, head_dim=2)
    attention, step = SubspaceAttention(small).double(), Ista(small).double()
    with torch.no_grad():
        for seed, parameter in enumerate([*attention.parameters(), *step.parameters()]):
            parameter.copy_(drawn(*parameter.shape, seed=seed))
    x = drawn(1, 5, 4).requires_grad_()
    scene = still(5)
    assert torch.autograd.gradcheck(lambda x, *_: attention(x, scene), (x, *attention.parameters()))
    assert torch.autograd.gradcheck(lambda x, *_: step(x), (x, *step.parameters()))


def test_what_it_costs_is_what_it_multiplies() -> None:
    """The dictionary is stored once and multiplied with twice, the subspaces once for queries, keys and values."""
    plain, model = parse(Model, SHAPE), crate()
    assert active_parameters(model, VOCAB) == parameters(model, VOCAB)
    stored = sum(one.numel() for one in decoder(CRATE).parameters())
    assert parameters(model, VOCAB) == stored
    more = train_flops_per_token(model, VOCAB, 48) - train_flops_per_token(plain, VOCAB, 48)
    mlp, attention = 2 * 24 * 24 - 3 * 24 * 40, 2 * 24 * 32 - 2 * 24 * (4 + 2) * 8
    assert more == 6 * 3 * (mlp + attention)
