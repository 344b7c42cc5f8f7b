"""Variants of the decoder: sizes, causality, and that evaluation reads what training computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from davinci.accounting.flops import forward_flops_per_token
from davinci.accounting.shapes import parameters
from davinci.config import Model
from davinci.config.parsing import parse
from davinci.errors import UserError
from davinci.model.cache import KVCache
from davinci.model.decoder import Decoder
from davinci.model.generate import generate
from davinci.model.reader import Reader

VOCAB = 61
SHAPE: dict[str, Any] = {
    "name": "test", "layers": 3, "hidden_size": 24, "attention_heads": 4, "kv_heads": 2, "head_dim": 8,
    "mlp_intermediate_size": 40, "vocab_size": VOCAB, "max_position_embeddings": 48, "rope_theta": 10000.0,
    "norm_eps": 1e-6, "qkv_bias": True, "tie_embeddings": True, "initializer_range": 0.2, "precision": "float32",
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "as Qwen2": {},
    "MHA": {"attention": {"kind": "multi_head"}},
    "MQA": {"attention": {"kind": "multi_query"}},
    "latent": {"attention": {"kind": "latent"}},
    "latent, narrow queries": {
        "attention": {"kind": "latent", "kv_rank": 12, "rope_dim": 6, "query_rank": 10}, "window": {"tokens": 6}
    },
    "QK-norm": {"qk_norm": {"kind": "rms"}},
    "window": {"window": {"tokens": 5}},
    "partial RoPE": {"positions": {"rotary": 0.5}},
    "NoPE": {"positions": {"rotary": 0.0}},
    "LayerNorm": {"norm": {"kind": "layernorm"}},
    "nonparametric": {"norm": {"kind": "nonparametric"}},
    "post-norm": {"placement": {"kind": "post"}},
    "sandwich": {"placement": {"kind": "sandwich"}},
    "GeGLU": {"mlp": {"kind": "geglu"}},
    "ReLU squared": {"mlp": {"kind": "relu2"}},
    "GELU": {"mlp": {"kind": "gelu"}},
    "KAN": {"mlp": {"kind": "kan", "centres": 5}},
    "subspace attention": {"attention": {"kind": "subspace"}, "window": {"tokens": 5}},
    "CRATE": {"attention": {"kind": "subspace"}, "mlp": {"kind": "ista"}, "norm": {"kind": "layernorm"}},
    "ISTA, post-norm": {"mlp": {"kind": "ista"}, "placement": {"kind": "post"}},
    "ISTA, sandwich": {"mlp": {"kind": "ista"}, "placement": {"kind": "sandwich"}},
    "linear attention": {"mixers": {"pattern": ["linear"]}},
    "linear and latent attention": {
        "mixers": {"pattern": ["linear", "attention"]}, "attention": {"kind": "latent"}, "window": {"tokens": 5}
    },
    "state-space": {"mixers": {"pattern": ["ssm"], "state": 6, "expand": 1, "convolution": 3}},
    "all mixers": {
        "mixers": {"pattern": ["ssm", "linear", "attention"], "state": 5}, "placement": {"kind": "sandwich"},
        "positions": {"rotary": 0.0}, "experts": {"count": 4},
    },
    "experts": {"experts": {"count": 4, "chosen": 2}},
    "experts, one shared": {
        "experts": {"count": 5, "chosen": 2, "shared": 1, "renormalise": False}, "mlp": {"kind": "relu2"}
    },
    "experts, a bias": {"experts": {"count": 4, "bias_rate": 0.01, "scores": "sigmoid"}},
    "muP": {"parametrisation": {"kind": "mup", "base_width": 8, "base_head_dim": 2}},
    "muP, experts, untied": {
        "parametrisation": {"kind": "mup", "base_width": 48, "base_head_dim": 32}, "experts": {"count": 4},
        "tie_embeddings": False, "placement": {"kind": "post"},
    },
    "many at once": {
        "attention": {"kind": "multi_query"}, "qk_norm": {"kind": "rms"}, "window": {"tokens": 7}, "qkv_bias": False,
        "positions": {"rotary": 0.25}, "norm": {"kind": "layernorm"}, "placement": {"kind": "sandwich"},
        "mlp": {"kind": "relu2"}, "tie_embeddings": False,
    },
}  # fmt: skip
every_variant = pytest.mark.parametrize("changes", VARIANTS.values(), ids=list(VARIANTS))


def decoder(changes: dict[str, Any]) -> Decoder:
    model = Decoder(parse(Model, SHAPE | changes), VOCAB)
    model.initialise(3)
    with torch.no_grad():  # biases start at 0 and norms at 1: move them, so that a test sees them
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    return model.eval()


def tokens_of(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


@every_variant
def test_parameters_are_those_that_are_planned_with(changes: dict[str, Any]) -> None:
    model = decoder(changes)
    assert sum(one.numel() for one in model.parameters()) == parameters(model.config, VOCAB)


@every_variant
def test_operations_are_those_that_are_planned_with(changes: dict[str, Any]) -> None:
    """Of a forward pass, as torch counts them; but for those that are no matrix products: a state that is written and
    read (planned as the recurrence), and the convolution of state-space mixers."""
    model, length = decoder(changes), 16
    shape = model.config
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(tokens_of(1, length))
    found = counter.get_flop_counts()["Global"]
    products = sum(count for operation, count in found.items() if operation is not torch.ops.aten.bmm)
    mixers = shape.layer_mixers
    states = 4 * 4 * 8 * 8 * mixers.count("linear")
    inner = shape.state_heads * 8
    states += mixers.count("ssm") * (4 * inner * shape.mixers.state + 2 * shape.convolved * shape.mixers.convolution)
    seen = min(length, shape.window.tokens or length)
    attention = 2 * 4 * (shape.key_dim + 8) * seen * mixers.count("attention")  # torch counts none on a CPU
    assert forward_flops_per_token(shape, VOCAB, length) == products / length + states + attention


@every_variant
def test_a_token_changes_nothing_before_it(changes: dict[str, Any]) -> None:
    model, tokens = decoder(changes), tokens_of(2, 17)
    other = tokens.clone()
    other[:, 9] = (other[:, 9] + 1) % VOCAB
    before, after = model(tokens), model(other)
    # To rounding: what an expert multiplies at once depends on who else chose it.
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=1e-5, atol=1e-5)
    assert (before[:, 9:] - after[:, 9:]).abs().amax() > 0.01


@every_variant
def test_documents_do_not_see_each_other(changes: dict[str, Any]) -> None:
    """A document's logits are those it has alone, at the same positions."""
    model, tokens = decoder(changes), tokens_of(1, 20)
    documents = torch.tensor([[0] * 8 + [1] * 12])
    alone = model.hidden(tokens, documents=torch.tensor([[5] * 8 + [1] * 12]))
    other = tokens.clone()
    other[:, :8] = 0
    torch.testing.assert_close(model.hidden(tokens, documents=documents), alone)
    torch.testing.assert_close(model.hidden(other, documents=documents)[:, 8:], alone[:, 8:])


@every_variant
def test_the_reader_computes_the_same_at_once_and_in_pieces(changes: dict[str, Any]) -> None:
    model, tokens = decoder(changes), tokens_of(3, 17)
    with torch.no_grad():
        wanted = model.hidden(tokens)
    reader, close = Reader(model), {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(reader.hidden(tokens).view(3, 17, -1), wanted, **close)
    cache = KVCache(model.config, 3, 20)
    parts = [reader.hidden(tokens[:, a:b], cache).view(3, b - a, -1) for a, b in ((0, 9), (9, 10), (10, 17))]
    torch.testing.assert_close(torch.cat(parts, dim=1), wanted, **close)


@every_variant
def test_it_writes_what_the_decoder_finds_likeliest(changes: dict[str, Any]) -> None:
    """Prompts of many lengths, some with a common beginning, against one pass of the decoder a token."""
    model, reader = decoder(changes), Reader(decoder(changes))
    begun = tokens_of(1, 34)[0].tolist()
    prompts = [begun[:34], [*begun[:33], 7], begun[:3], begun[5:16]] + [[*begun[:32], one] for one in range(9)]
    for prompt, written in zip(prompts, generate(reader, prompts, 6), strict=True):
        text = list(prompt)
        for token in written:
            with torch.no_grad():
                scores = model(torch.tensor([text]))[0, -1]
            assert scores[token] >= scores.max() - 1e-4
            text.append(token)
        assert len(written) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": {"rotary": 0.3}}, "model.yaml: positions.rotary 0.3 of head_dim 8 is 2.4 features"),
        ({"kv_heads": 3}, "kv_heads 3 must divide attention_heads 4; nearest: 2 or 4"),
        ({"attention_heads": 10}, "attention_heads 10 must divide hidden_size 24; nearest: 8 or 12"),
        ({"mlp": {"kind": "swigl"}}, "nearest: swiglu"),
        (
            {"attention": {"kind": "grouped", "kv_rank": 4}},
            "attention.kv_rank, rope_dim and query_rank: belong to kind",
        ),
        ({"attention": {"kind": "latent", "rope_dim": 3}}, "rope_dim 3 must be even for RoPE; nearest: 2 or 4"),
        ({"head_dim": 7}, "head_dim 7 must be even for RoPE; nearest: 6 or 8"),
        ({"mlp": {"kind": "swigul"}}, "mlp.kind: Input should be 'swiglu'"),
        ({"experts": {"count": 2, "chosen": 3}}, "experts.chosen 3 is more than the 2 experts there are; 1 to 2"),
        (
            {"mixers": {"pattern": ["ssm", "ssm", "linear", "attention"]}},
            "mixers.pattern: 4 mixers are more than the 3 layers there are",
        ),
        (
            {"attention": {"kind": "subspace"}, "qk_norm": {"kind": "rms"}},
            "qk_norm.kind: attention.kind subspace has one projection for all; none is accepted",
        ),
        ({"mlp": {"kind": "ista"}, "experts": {"count": 4}}, "experts.count: there are no experts of mlp.kind ista"),
        ({"mlp": {"kind": "kan"}, "experts": {"count": 4}}, "experts.count: there are no experts of mlp.kind kan"),
        ({"mixers": {"pattern": ["linear"], "state": 5}}, "mixers.state, expand and convolution: belong to ssm"),
        ({"mlp": {"kind": "gelu", "centres": 5}}, "mlp.centres: belongs to kind kan, not to gelu"),
        ({"mixers": {"pattern": []}}, "mixers.pattern: at least 1 is needed"),
        ({"mixers": {"pattern": ["mamba"]}}, "mixers.pattern.0: Input should be 'attention', 'linear' or 'ssm'"),
        (
            {"mixers": {"pattern": ["linear"]}, "attention": {"kind": "latent", "rope_dim": 16}},
            "attention.rope_dim 16: linear attention turns as many features of a head, of which it has 8",
        ),
        ({"window": {"tokens": 0}}, "window.tokens: Input should be greater than 0"),
    ],
    ids=str,
)
def test_a_shape_that_cannot_be_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(Model, SHAPE | changes, lambda key: "model.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)
