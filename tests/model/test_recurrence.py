"""Layers with a state: against the recurrence written out token by token, and against transformers' Mamba-2."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_variants import SHAPE, VOCAB, decoder, tokens_of
from torch import Tensor

from davinci.accounting.flops import train_flops_per_token
from davinci.config import Model
from davinci.config.parsing import parse
from davinci.model import recurrence
from davinci.model.attention import Scene
from davinci.model.linear_attention import LinearAttention
from davinci.model.recurrence import Recurrent, scan
from davinci.model.rotary import angles
from davinci.model.state_space import StateSpace

KINDS: dict[str, type[Recurrent]] = {"linear": LinearAttention, "ssm": StateSpace}
every_kind = pytest.mark.parametrize("kind", KINDS)


def shape(kind: str, **changes: Any) -> Model:
    mixers = {"pattern": [kind], **({"state": 5} if kind == "ssm" else {})}
    return parse(Model, SHAPE | {"mixers": mixers, "max_position_embeddings": 256} | changes)


def made(model: Model) -> Recurrent:
    """In float64, so that differences are not rounding."""
    layer = KINDS[model.mixers.pattern[0]](model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return layer.double()


def scene_of(model: Model, length: int, documents: Tensor | None = None, start: int = 0) -> Scene:
    cosines, sines = angles(model.rotary_dim, start + length, model.rope_theta)
    return Scene(cosines[start:, None].double(), sines[start:, None].double(), None, documents)


def drawn(*size: int, seed: int = 2) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 63, 64, 150])
@pytest.mark.parametrize("with_documents", [False, True])
def test_pieces_give_what_the_recurrence_gives(length: int, with_documents: bool) -> None:
    queries, keys, values = drawn(2, length, 2, 3), drawn(2, length, 2, 3, seed=3), drawn(2, length, 4, 5, seed=4)
    log_decay, begun = -drawn(2, length, 4, seed=5).abs() / 9, drawn(2, 4, 3, 5, seed=6)
    documents = None
    if with_documents:  # of 1, 29, 64 and more tokens, in the second row elsewhere
        starts = torch.zeros(2, length, dtype=torch.int64)
        for row, places in enumerate(((1, 30, 94), (64, 128, 129))):
            starts[row, [one for one in places if one < length]] = 1
        documents, begun = starts.cumsum(dim=1), torch.zeros_like(begun)
    got, after = scan(queries, keys, values, log_decay, begun, documents)
    state = begun
    for t in range(length):
        state = state * log_decay[:, t, :, None, None].exp()
        if documents is not None and t:
            state = state * (documents[:, t] == documents[:, t - 1])[:, None, None, None]
        key, query = (one[:, t].repeat_interleave(2, dim=1) for one in (keys, queries))
        state = state + key[..., None] * values[:, t, :, None]
        torch.testing.assert_close(got[:, t], (state * query[..., None]).sum(dim=2))
    torch.testing.assert_close(after, state)


@every_kind
def test_passing_the_state_on_gives_the_parallel_form(kind: str) -> None:
    model = shape(kind)
    layer, x = made(model), drawn(2, 150, 24)
    whole, last = layer.mix(x, scene_of(model, 150), None)
    parts, state = [], None
    for start, stop in ((0, 1), (1, 2), (2, 3), (3, 70), (70, 149), (149, 150)):
        part, state = layer.mix(x[:, start:stop], scene_of(model, stop - start, start=start), state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    assert state is not None
    for mine, its in zip(state, last, strict=True):
        torch.testing.assert_close(mine, its)


@every_kind
def test_documents_start_anew(kind: str) -> None:
    model = shape(kind, positions={"rotary": 0.0})
    layer, x = made(model), drawn(1, 150, 24)
    together = layer(x, scene_of(model, 150, torch.tensor([[0] * 2 + [1] * 80 + [2] * 68])))
    alone = [layer(part, scene_of(model, part.shape[1])) for part in x.split([2, 80, 68], dim=1)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1))


@every_kind
def test_gradients_are_those_of_differences(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "PIECE", 3)
    model = shape(kind, hidden_size=4, attention_heads=2, head_dim=2)
    layer, x = made(model), drawn(1, 7, 4).requires_grad_()
    scene = scene_of(model, 7, torch.tensor([[0] * 5 + [1] * 2]))
    assert torch.autograd.gradcheck(lambda x, *_: layer(x, scene), (x, *layer.parameters()))


def test_retention_is_what_its_equations_say() -> None:
    """RetNet's recurrent form, positions as complex factors of pairs of features."""
    model = shape("linear")
    layer, x = made(model), drawn(1, 9, 24)
    got = layer(x, scene_of(model, 9))[0]
    weights = {name.removesuffix("_proj.weight"): one.detach() for name, one in layer.named_parameters()}
    turns = torch.tensor([model.rope_theta ** (-i / 4) for i in range(4)], dtype=torch.float64)
    heads = []
    for head in range(4):
        rows = slice(8 * head, 8 * head + 8)
        kept, state, found = 1 - 2 ** (-5 - head), torch.zeros(4, 8, dtype=torch.complex128), []
        for t, token in enumerate(x[0]):
            query, key, value = (weights[one][rows] @ token for one in "qkv")
            position = torch.polar(torch.ones(4, dtype=torch.float64), t * turns)
            turned_key = torch.complex(key[:4], key[4:]) * position / math.sqrt(8)
            state = kept * state + turned_key[:, None] * value
            y = ((torch.complex(query[:4], query[4:]) * position).conj() @ state).real
            gate = weights["g"][rows] @ token
            found.append(gate * gate.sigmoid() * y / (y.square().mean() + model.norm_eps).sqrt())
        heads.append(torch.stack(found))
    # Angles are tabulated in float32.
    torch.testing.assert_close(got, torch.cat(heads, dim=1) @ weights["o"].T, rtol=1e-4, atol=1e-5)


def test_it_is_the_mixer_of_transformers_mamba2() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    model = shape("ssm", attention_heads=3, kv_heads=1)
    layer = made(model).float()
    config = transformers.Mamba2Config(
        hidden_size=24, num_heads=6, head_dim=8, state_size=5, expand=2, conv_kernel=4, n_groups=1, chunk_size=16,
        layer_norm_epsilon=model.norm_eps, num_hidden_layers=1,
    )  # fmt: skip
    theirs = Mamba2Mixer(config, 0).eval()
    theirs.load_state_dict(layer.state_dict())
    x = drawn(2, 150, 24).float()
    with torch.no_grad():
        torch.testing.assert_close(layer(x, scene_of(model, 150)), theirs(x), rtol=1e-4, atol=1e-4)


def test_it_starts_as_its_authors_start_it() -> None:
    layers = [decoder({"mixers": {"pattern": ["ssm"]}, "norm": {"kind": "nonparametric"}}) for _ in range(2)]
    fresh = layers[0]
    fresh.initialise(5)
    layers[1].initialise(5)
    assert all(torch.equal(*pair) for pair in zip(*(one.parameters() for one in layers), strict=True))
    mixer = fresh.model.layers[1].mixing
    assert isinstance(mixer, StateSpace)
    steps, decays = torch.nn.functional.softplus(mixer.dt_bias), mixer.A_log.exp()
    assert 1e-3 <= float(steps.min().detach()) <= float(steps.max().detach()) <= 0.1 * (1 + 1e-5)
    assert 1 <= float(decays.min().detach()) < float(decays.max().detach()) <= 16
    narrow = 0.2 / math.sqrt(6)
    assert float(mixer.out_proj.weight.std().detach()) == pytest.approx(narrow, rel=0.1)


@pytest.mark.parametrize("length", [48, 4096])
def test_what_it_costs_does_not_grow_with_the_text(length: int) -> None:
    """Two operations for each weight and token, and as many for each feature of a state that is written, and read."""
    attention = parse(Model, SHAPE)
    for kind, features in (("linear", 4 * 8 * 8), ("ssm", 8 * 8 * 5)):
        model = shape(kind)
        layer = made(model)
        weights = sum(one.numel() for one in layer.parameters() if one.ndim > 1)
        plain = 6 * 3 * (2 * 24 * 6 * 8) + 12 * 3 * 4 * 8 * length
        more = train_flops_per_token(model, VOCAB, length) - train_flops_per_token(attention, VOCAB, length)
        assert more == 3 * (6 * weights + 3 * (2 + 2) * features) - plain


@torch.no_grad()
def test_long_texts_are_causal() -> None:
    """Over several pieces."""
    model = decoder({"mixers": {"pattern": ["ssm", "linear"]}, "max_position_embeddings": 256})
    tokens = tokens_of(1, 200)
    other = tokens.clone()
    other[:, 130] = (other[:, 130] + 1) % VOCAB
    before, after = model(tokens), model(other)
    torch.testing.assert_close(before[:, :130], after[:, :130], rtol=1e-5, atol=1e-5)
    assert (before[:, 130:] - after[:, 130:]).abs().amax() > 0.01
