"""The decoder: its size, its arithmetic, its determinism."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from davinci.config import Model
from davinci.model.decoder import Decoder

VOCAB = 61


def shape(**changes: Any) -> Model:
    values: dict[str, Any] = {
        "name": "test",
        "layers": 2,
        "hidden_size": 24,
        "attention_heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "mlp_intermediate_size": 40,
        "vocab_size": VOCAB,
        "max_position_embeddings": 48,
        "rope_theta": 10000.0,
        "norm_eps": 1e-6,
        "qkv_bias": True,
        "tie_embeddings": True,
        "initializer_range": 0.02,
        "precision": "float32",
    } | changes
    return Model(**values)


def decoder(seed: int = 3, **changes: Any) -> Decoder:
    model = Decoder(shape(**changes), VOCAB)
    model.initialise(seed)
    with torch.no_grad():  # biases start at 0 and norms at 1: move them, so that a test sees them
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    return model


def random_tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def reference(model: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    """The same function written out from the papers, in float64, with keys and values repeated explicitly."""
    config = model.config
    weights = {name: value.double() for name, value in model.state_dict().items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + config.norm_eps).sqrt() * weights[f"{name}.weight"]

    def rope(x: torch.Tensor) -> torch.Tensor:
        half = config.head_dim // 2
        frequency = config.rope_theta ** (-torch.arange(half).double() / half)
        angle = torch.arange(x.shape[1]).double()[:, None] * frequency
        pairs = torch.complex(x[..., :half].contiguous(), x[..., half:].contiguous())
        turned = pairs * torch.polar(torch.ones_like(angle), angle)[:, None]
        return torch.cat((turned.real, turned.imag), -1)

    x = weights["model.embed_tokens.weight"][tokens]
    rows, length = tokens.shape
    for layer in range(config.layers):
        name = f"model.layers.{layer}"
        h = norm(x, f"{name}.input_layernorm")
        q, k, v = (
            functional.linear(
                h, weights[f"{name}.self_attn.{part}_proj.weight"], weights.get(f"{name}.self_attn.{part}_proj.bias")
            ).view(rows, length, -1, config.head_dim)
            for part in "qkv"
        )
        repeats = config.attention_heads // config.kv_heads
        q, k, v = rope(q), rope(k).repeat_interleave(repeats, 2), v.repeat_interleave(repeats, 2)
        scores = torch.einsum("bihd,bjhd->bhij", q, k) / config.head_dim**0.5
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2)
        x = x + mixed @ weights[f"{name}.self_attn.o_proj.weight"].T
        h = norm(x, f"{name}.post_attention_layernorm")
        gate, up = h @ weights[f"{name}.mlp.gate_proj.weight"].T, h @ weights[f"{name}.mlp.up_proj.weight"].T
        x = x + (gate * gate.sigmoid() * up) @ weights[f"{name}.mlp.down_proj.weight"].T
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return norm(x, "model.norm") @ head.T


@pytest.mark.parametrize(
    "changes",
    [{}, {"kv_heads": 4}, {"kv_heads": 1, "qkv_bias": False}, {"tie_embeddings": False, "attention_heads": 2}],
    ids=str,
)
def test_forward_is_the_function_of_the_papers(changes: dict[str, Any]) -> None:
    model, tokens = decoder(**changes), random_tokens(2, 17)
    logits = model(tokens)
    assert logits.shape == (2, 17, VOCAB) and logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), reference(model, tokens), rtol=1e-4, atol=1e-6)


def test_gradients_of_norm_and_rotation_are_those_of_the_reference() -> None:
    model, tokens = decoder(), random_tokens(2, 9)
    pull = torch.randn(2, 9, VOCAB, generator=torch.Generator().manual_seed(5))
    (model(tokens) * pull).sum().backward()
    weights = {name: value.detach().double().requires_grad_() for name, value in model.state_dict().items()}

    class Double:
        config = model.config

        def state_dict(self) -> dict[str, torch.Tensor]:
            return weights

    (reference(Double(), tokens) * pull.double()).sum().backward()  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        wanted = weights[name].grad
        # A key's bias moves all scores of a query alike, so its true gradient vanishes in the unrotated part: compare
        # on the scale of the largest entry.
        assert wanted is not None and parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad.double(), wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max() + 1)
        )


def test_a_token_sees_nothing_after_it() -> None:
    model, tokens = decoder(), random_tokens(1, 12)
    changed = tokens.clone()
    changed[0, 7:] = (changed[0, 7:] + 1) % VOCAB
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7], after[:, 7])


def test_the_paper_has_3_09_billion_parameters() -> None:
    paper = shape(
        layers=36,
        hidden_size=2048,
        attention_heads=16,
        head_dim=128,
        mlp_intermediate_size=11008,
        vocab_size=151_936,
        max_position_embeddings=4096,
    )
    with torch.device("meta"):
        model = Decoder(paper, 151_936)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 3_085_938_688
    assert f"{count / 1e9:.2f}" == "3.09"


def test_parameter_names_are_qwen2s() -> None:
    names = set(decoder(layers=1, tie_embeddings=False).state_dict())
    layer = "model.layers.0"
    assert names == {
        "model.embed_tokens.weight",
        *(f"{layer}.self_attn.{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")),
        f"{layer}.self_attn.o_proj.weight",
        *(f"{layer}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
        f"{layer}.input_layernorm.weight",
        f"{layer}.post_attention_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    }


def test_initialise_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first, other = Decoder(shape(), VOCAB), Decoder(shape(), VOCAB)
    first.initialise(5)
    torch.manual_seed(2)
    second = Decoder(shape(), VOCAB)
    second.initialise(5)
    other.initialise(6)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.unembedding, other.unembedding)


def test_initialise_gives_the_widths_it_says() -> None:
    model = Decoder(shape(hidden_size=64, mlp_intermediate_size=256, layers=8), VOCAB)
    model.initialise(0)
    for name, value in model.state_dict().items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            assert value.std().item() == pytest.approx(0.02 / 4, rel=0.1)
        elif value.ndim == 2:
            assert value.std().item() == pytest.approx(0.02, rel=0.1)
        else:
            assert torch.equal(value, torch.zeros_like(value) if name.endswith("bias") else torch.ones_like(value))
    entropy = functional.cross_entropy(model(random_tokens(4, 32)).flatten(0, 1), random_tokens(4, 32, 1).flatten())
    assert entropy.item() == pytest.approx(torch.tensor(float(VOCAB)).log().item(), abs=0.1)


def test_too_many_tokens_are_refused() -> None:
    model = decoder()
    with pytest.raises(ValueError, match="49 tokens do not fit in 48"):
        model(random_tokens(1, 49))


def test_bfloat16_stays_near_float32_and_keeps_float32_weights() -> None:
    exact, rough, tokens = decoder(), decoder(precision="bfloat16"), random_tokens(2, 12)
    assert rough.hidden(tokens).dtype == torch.bfloat16
    assert rough.unembedding.dtype == torch.float32
    logits = rough(tokens)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact(tokens), rtol=0.05, atol=0.02)
    logits.sum().backward()
    assert rough.unembedding.grad is not None and rough.unembedding.grad.dtype == torch.float32
