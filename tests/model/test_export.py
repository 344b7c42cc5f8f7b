"""The exported folder: its layout, and what transformers makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from davinci.config import Model
from davinci.config.parsing import parse
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.model.export import export
from davinci.model.generate import generate
from davinci.model.importing import originals, read_folder
from davinci.model.layout_choice import QWEN2_SPLIT
from davinci.model.reader import Reader

TEXTS = [
    "for part in parts:\n    if part in 12:\n        x = 345\n",
    "It don't rain;  the cat's away, naïve.\r\n\r\nYes",
]


def shape(**changes: Any) -> Model:
    values: dict[str, Any] = {
        "name": "test", "layers": 2, "hidden_size": 24, "attention_heads": 4, "kv_heads": 2, "head_dim": 8,
        "mlp_intermediate_size": 40, "vocab_size": 300, "max_position_embeddings": 48, "rope_theta": 5000.0,
        "norm_eps": 1e-5, "qkv_bias": True, "tie_embeddings": True, "initializer_range": 0.3, "precision": "float32",
    }  # fmt: skip
    return parse(Model, values | changes)


def drawn(model: Model) -> Decoder:
    """A decoder no weight of which is 0 or 1."""
    decoder = Decoder(model, 300).eval()
    decoder.initialise(5)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for one in decoder.parameters():
            if one.ndim == 1:
                one += 0.1 * torch.randn(one.shape, generator=generator)
    for layer in decoder.experts:
        if layer.bias is not None:
            layer.bias.copy_(torch.linspace(-0.4, 0.4, len(layer.bias)))
    return decoder


def tokenizer(of_qwen2: bool = False) -> Tokenizer:
    made = Tokenizer(models.BPE())
    split: Any = pre_tokenizers.Digits(individual_digits=True)
    if of_qwen2:
        made.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=not of_qwen2)])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS * 3, trainer)
    return made


MUP = {"kind": "mup", "base_width": 10, "base_head_dim": 3}
# Of a head's four speeds here one is kept, two are slowed in part or whole.
SCALING = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
CASES = {
    "biases": (shape(), tokenizer(), "SeedOssForCausalLM"),
    "biases, Qwen2's tokenizer": (shape(hidden_size=32), tokenizer(of_qwen2=True), "Qwen2ForCausalLM"),
    # vLLM's Qwen2 has heads as wide as hidden_size / attention_heads, whatever head_dim says.
    "biases, Qwen2's tokenizer, free heads": (shape(), tokenizer(of_qwen2=True), "SeedOssForCausalLM"),
    "biases, Qwen2's tokenizer, free heads, a window": (
        shape(window={"tokens": 9}),
        tokenizer(of_qwen2=True),
        "SmolLM3ForCausalLM",
    ),
    "biases, Qwen2's tokenizer, free heads, a window, RoPE scaling": (  # vLLM has none
        shape(window={"tokens": 9}, positions={"scaling": SCALING}),
        tokenizer(of_qwen2=True),
        "Qwen2ForCausalLM",
    ),
    "no biases": (shape(qkv_bias=False), tokenizer(), "LlamaForCausalLM"),
    "untied": (shape(tie_embeddings=False), tokenizer(), "SeedOssForCausalLM"),
    "QK-norm, a window": (
        shape(qkv_bias=False, qk_norm={"kind": "rms"}, window={"tokens": 9}),
        tokenizer(of_qwen2=True),
        "Qwen3ForCausalLM",
    ),
    "biases, a window": (
        shape(window={"tokens": 9}, hidden_size=32),
        tokenizer(of_qwen2=True),
        "Qwen2ForCausalLM",
    ),
    "latent": (shape(attention={"kind": "latent"}, norm_eps=1e-6), tokenizer(), "DeepseekV3ForCausalLM"),
    "latent, narrow queries": (
        shape(attention={"kind": "latent", "kv_rank": 20, "rope_dim": 4, "query_rank": 12}, norm_eps=1e-6),
        tokenizer(),
        "DeepseekV3ForCausalLM",
    ),
    "latent, experts, a bias": (
        shape(
            attention={"kind": "latent"},
            norm_eps=1e-6,
            experts={"count": 4, "shared": 1, "width": 16, "scores": "sigmoid", "bias_rate": 0.1},
        ),
        tokenizer(),
        "DeepseekV3ForCausalLM",
    ),
    "latent, experts whose weights do not sum to 1": (
        shape(
            attention={"kind": "latent"},
            norm_eps=1e-6,
            experts={"count": 4, "shared": 2, "width": 16, "scores": "sigmoid", "renormalise": False},
        ),
        tokenizer(),
        "DeepseekV3ForCausalLM",
    ),
    "a window, Qwen2's tokenizer": (
        shape(qkv_bias=False, window={"tokens": 9}),
        tokenizer(of_qwen2=True),
        "MistralForCausalLM",
    ),
    "a window": (shape(qkv_bias=False, window={"tokens": 9}), tokenizer(), "MistralForCausalLM"),
    # vLLM's Llama, Mistral and Qwen2 have SiLU only.
    "MQA, GeGLU": (
        shape(qkv_bias=False, attention={"kind": "multi_query"}, mlp={"kind": "geglu"}),
        tokenizer(),
        "SeedOssForCausalLM",
    ),
    "GeGLU, a window": (
        shape(qkv_bias=False, window={"tokens": 9}, mlp={"kind": "geglu"}),
        tokenizer(),
        "SmolLM3ForCausalLM",
    ),
    "GeGLU, biases, Qwen2's tokenizer": (
        shape(hidden_size=32, mlp={"kind": "geglu"}),
        tokenizer(of_qwen2=True),
        "SeedOssForCausalLM",
    ),
    "no positions": (shape(qkv_bias=False, positions={"rotary": 0.0}), tokenizer(), "SmolLM3ForCausalLM"),
    "ReLU squared": (shape(qkv_bias=False, mlp={"kind": "relu2"}), tokenizer(), "ArceeForCausalLM"),
    "GELU": (shape(qkv_bias=False, mlp={"kind": "gelu"}), tokenizer(), "ArceeForCausalLM"),
    "LayerNorm, partial RoPE, ReLU squared": (
        shape(qkv_bias=False, mlp={"kind": "relu2"}, norm={"kind": "layernorm"}, positions={"rotary": 0.5}),
        tokenizer(),
        "NemotronForCausalLM",
    ),
    "LayerNorm, partial RoPE": (
        shape(norm={"kind": "layernorm"}, positions={"rotary": 0.5}, hidden_size=32),
        tokenizer(),
        "StableLmForCausalLM",
    ),
    "LayerNorm without gain, biases, any eps": (
        shape(norm={"kind": "nonparametric"}, norm_eps=1e-3, hidden_size=32),
        tokenizer(),
        "StableLmForCausalLM",
    ),
    "nonparametric, biases": (shape(norm={"kind": "nonparametric"}), tokenizer(), "OlmoForCausalLM"),
    "QK-norm, biases, Qwen2's tokenizer": (
        shape(qk_norm={"kind": "rms"}),
        tokenizer(of_qwen2=True),
        "Qwen3ForCausalLM",
    ),
    "QK-norm, biases": (shape(qk_norm={"kind": "rms"}), tokenizer(), "Glm4MoeForCausalLM"),
    "QK-norm, half RoPE": (
        shape(qk_norm={"kind": "rms"}, positions={"rotary": 0.5}, qkv_bias=False),
        tokenizer(),
        "Glm4MoeForCausalLM",
    ),
    "half RoPE": (shape(positions={"rotary": 0.5}, head_dim=12, qkv_bias=False), tokenizer(), "GlmForCausalLM"),
    "half RoPE, biases": (shape(positions={"rotary": 0.5}), tokenizer(), "GlmForCausalLM"),
    "no positions, biases": (shape(positions={"rotary": 0.0}), tokenizer(), "SmolLM3ForCausalLM"),
    "no positions, a window": (
        shape(positions={"rotary": 0.0}, window={"tokens": 9}, qkv_bias=False),
        tokenizer(),
        "SmolLM3ForCausalLM",
    ),
    "a window, biases": (shape(window={"tokens": 9}), tokenizer(), "SmolLM3ForCausalLM"),
    "ReLU squared, biases": (shape(mlp={"kind": "relu2"}), tokenizer(), "ArceeForCausalLM"),
    "LayerNorm, GELU, biases": (
        shape(mlp={"kind": "gelu"}, norm={"kind": "layernorm"}),
        tokenizer(),
        "NemotronForCausalLM",
    ),
    "experts, biases": (shape(experts={"count": 4}), tokenizer(), "Ernie4_5_MoeForCausalLM"),
    "experts, one shared, biases": (shape(experts={"count": 4, "shared": 1}), tokenizer(), "Ernie4_5_MoeForCausalLM"),
    "experts, QK-norm, biases, Qwen2's tokenizer": (
        shape(experts={"count": 4}, qk_norm={"kind": "rms"}),
        tokenizer(of_qwen2=True),
        "Qwen3MoeForCausalLM",
    ),
    "state-space and attention, biases": (
        shape(hidden_size=32, mixers={"pattern": ["ssm", "attention"], "state": 6}),
        tokenizer(),
        "GraniteMoeHybridForCausalLM",
    ),
    "subspace attention": (shape(attention={"kind": "subspace"}), tokenizer(), "LlamaForCausalLM"),
    "nonparametric": (shape(qkv_bias=False, norm={"kind": "nonparametric"}), tokenizer(), "OlmoForCausalLM"),
    "experts": (shape(qkv_bias=False, experts={"count": 4}), tokenizer(), "MixtralForCausalLM"),
    "experts of odd widths": (
        shape(qkv_bias=False, hidden_size=20, experts={"count": 5, "chosen": 3, "width": 13}),
        tokenizer(),
        "MixtralForCausalLM",
    ),
    "latent, experts of odd widths": (
        shape(
            attention={"kind": "latent"},
            norm_eps=1e-6,
            hidden_size=28,
            experts={"count": 3, "shared": 1, "width": 9, "scores": "sigmoid"},
        ),
        tokenizer(),
        "DeepseekV3ForCausalLM",
    ),
    "muP": (shape(parametrisation=MUP), tokenizer(), "SeedOssForCausalLM"),
    "muP, untied": (shape(parametrisation=MUP, tie_embeddings=False, qkv_bias=False), tokenizer(), "LlamaForCausalLM"),
    "muP, QK-norm": (
        shape(parametrisation=MUP, qk_norm={"kind": "rms"}, qkv_bias=False),
        tokenizer(of_qwen2=True),
        "Qwen3ForCausalLM",
    ),
    "muP, LayerNorm": (
        shape(parametrisation=MUP, norm={"kind": "layernorm"}, hidden_size=32),
        tokenizer(),
        "StableLmForCausalLM",
    ),
    "muP, untied, nonparametric": (
        shape(parametrisation=MUP, norm={"kind": "nonparametric"}, qkv_bias=False, tie_embeddings=False),
        tokenizer(),
        "OlmoForCausalLM",
    ),
    "RoPE scaling": (shape(qkv_bias=False, positions={"scaling": SCALING}), tokenizer(), "LlamaForCausalLM"),
    "RoPE scaling, biases": (shape(positions={"scaling": SCALING}), tokenizer(), "SeedOssForCausalLM"),
    "sandwich": (shape(placement={"kind": "sandwich"}, tie_embeddings=False), tokenizer(), "Glm4ForCausalLM"),
    "sandwich, partial RoPE, GeGLU, wide heads": (
        shape(
            placement={"kind": "sandwich"},
            positions={"rotary": 0.5},
            mlp={"kind": "geglu"},
            head_dim=12,
            qkv_bias=False,
        ),
        tokenizer(),
        "Glm4ForCausalLM",
    ),
    "muP, sandwich": (shape(parametrisation=MUP, placement={"kind": "sandwich"}), tokenizer(), "Glm4ForCausalLM"),
    "QK-norm, experts": (
        shape(qkv_bias=False, qk_norm={"kind": "rms"}, experts={"count": 4, "renormalise": False}),
        tokenizer(of_qwen2=True),
        "Qwen3MoeForCausalLM",
    ),
    "experts, one shared": (
        shape(qkv_bias=False, experts={"count": 5, "chosen": 3, "shared": 2, "width": 9}),
        tokenizer(),
        "Ernie4_5_MoeForCausalLM",
    ),
    "experts, a bias": (
        shape(qkv_bias=False, head_dim=12, experts={"count": 4, "bias_rate": 0.1}),
        tokenizer(),
        "Ernie4_5_MoeForCausalLM",
    ),
    "experts with sigmoid scores, biases, QK-norm": (
        shape(
            qk_norm={"kind": "rms"},
            positions={"rotary": 0.5},
            experts={"count": 4, "shared": 1, "scores": "sigmoid", "bias_rate": 0.1},
        ),
        tokenizer(),
        "Glm4MoeForCausalLM",
    ),
    "state-space": (
        shape(qkv_bias=False, hidden_size=32, mixers={"pattern": ["ssm"], "state": 6, "convolution": 3}),
        tokenizer(),
        "GraniteMoeHybridForCausalLM",
    ),
    "state-space, whatever attention would be": (
        shape(
            hidden_size=32,
            mixers={"pattern": ["ssm"]},
            attention={"kind": "multi_query"},
            qk_norm={"kind": "rms"},
            window={"tokens": 9},
            positions={"scaling": SCALING},
        ),
        tokenizer(),
        "GraniteMoeHybridForCausalLM",
    ),
    "state-space and attention": (
        shape(
            qkv_bias=False,
            layers=5,
            hidden_size=32,
            mixers={"pattern": ["ssm", "ssm", "attention"], "expand": 1},
            tie_embeddings=False,
        ),
        tokenizer(),
        "GraniteMoeHybridForCausalLM",
    ),
    "state-space and attention, NoPE, experts": (
        shape(
            qkv_bias=False,
            hidden_size=32,
            mixers={"pattern": ["attention", "ssm"], "state": 5},
            positions={"rotary": 0.0},
            experts={"count": 4, "shared": 1, "width": 16},
        ),
        tokenizer(),
        "GraniteMoeHybridForCausalLM",
    ),
    "wide heads": (shape(head_dim=12, qkv_bias=False), tokenizer(), "LlamaForCausalLM"),
}


@pytest.mark.parametrize(("model", "spoken", "architecture"), CASES.values(), ids=list(CASES))
def test_layout(model: Model, spoken: Tokenizer, architecture: str, tmp_path: Path) -> None:
    export(tmp_path, Decoder(model, 300).state_dict(), model, 300, spoken)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [architecture]
    assert {file.name for file in tmp_path.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        ({"mlp": {"kind": "geglu"}}, set()),
        ({"mlp": {"kind": "geglu"}, "norm": {"kind": "layernorm"}, "hidden_size": 32}, {"GeGLU"}),
        ({"mlp": {"kind": "geglu"}, "experts": {"count": 4}}, {"GeGLU"}),
        ({"qk_norm": {"kind": "rms"}}, {"QK-norm"}),
    ],
    ids=str,
)
def test_what_vllms_class_of_that_name_lacks_is_said(changes: dict[str, Any], lacks: set[str], tmp_path: Path) -> None:
    model = shape(**changes)
    assert export(tmp_path, Decoder(model, 300).state_dict(), model, 300, tokenizer()) == lacks


@pytest.mark.parametrize(
    ("changes", "is_written"),
    [
        ({"attention": {"kind": "latent"}, "norm_eps": 1e-6}, True),
        ({"qk_norm": {"kind": "rms"}}, True),
        ({}, False),
    ],
    ids=["DeepSeek-V3", "GLM-4.5", "Seed-OSS"],
)
def test_a_tied_unembedding_is_written_where_vllm_would_not_take_the_embedding(
    changes: dict[str, Any], is_written: bool, tmp_path: Path
) -> None:
    decoder = drawn(shape(**changes))
    export(tmp_path, decoder.state_dict(), decoder.config, 300, tokenizer())
    written = load_file(tmp_path / "model.safetensors")
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"]
    assert ("lm_head.weight" in written) == is_written
    assert torch.equal(written.get("lm_head.weight", decoder.unembedding), decoder.unembedding)
    found = read_folder(tmp_path, "back")
    back = originals(found.weights(), found.model, found.layout.architecture, found.dtypes)
    assert back.keys() == written.keys() and all(torch.equal(back[name], one) for name, one in written.items())


@pytest.mark.parametrize(("model", "spoken", "architecture"), CASES.values(), ids=list(CASES))
def test_transformers_computes_the_same(model: Model, spoken: Tokenizer, architecture: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    decoder = drawn(model)
    export(tmp_path, decoder.state_dict(), model, 300, spoken)
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert type(theirs.eval()).__name__ == architecture
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    read = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = spoken.encode(text).ids
        assert read(text, add_special_tokens=False)["input_ids"] == ids
        assert read.decode(ids) == spoken.decode(ids)
        tokens = torch.tensor([ids[:48]])
        with torch.no_grad():
            torch.testing.assert_close(theirs(tokens).logits, decoder(tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("model", "spoken", "architecture"), CASES.values(), ids=list(CASES))
def test_what_is_exported_is_read_back(model: Model, spoken: Tokenizer, architecture: str, tmp_path: Path) -> None:
    decoder = drawn(model)
    export(tmp_path, decoder.state_dict(), model, 300, spoken)
    found = read_folder(tmp_path, "back")
    assert found.layout.architecture == architecture
    again = Decoder(found.model, 300).eval()
    again.load_state_dict(found.weights())
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(tokens), decoder(tokens), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"mixers": {"pattern": ["ssm"], "state": 5}},
        {"mixers": {"pattern": ["ssm", "attention"]}},
        {"placement": {"kind": "sandwich"}},
        {"experts": {"count": 4, "shared": 1}},
    ],
    ids=str,
)
def test_transformers_writes_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    decoder = Decoder(shape(qkv_bias=False, hidden_size=32, initializer_range=0.5, **changes), 300).eval()
    decoder.initialise(5)
    export(tmp_path, decoder.state_dict(), decoder.config, 300, tokenizer())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    prompt = list(range(1, 9))
    found = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, eos_token_id=None)[0, 8:].tolist()
    assert found == generate(Reader(decoder), [prompt], 12)[0] and len(set(found)) > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"placement": {"kind": "post"}}, "SeedOssForCausalLM comes nearest and lacks post-norm"),
        (
            {"experts": {"count": 4}, "norm": {"kind": "layernorm"}},
            "Ernie4_5_MoeForCausalLM comes nearest and lacks layernorm",
        ),
        (
            {"qk_norm": {"kind": "rms"}, "window": {"tokens": 9}},
            "Qwen3ForCausalLM computes the same, but transformers",
        ),
        (
            {"window": {"tokens": 1}, "qkv_bias": False},
            "comes nearest and lacks a window of one token",
        ),
        ({"mixers": {"pattern": ["ssm", "linear"]}, "hidden_size": 32}, "nearest and lacks linear attention"),
        (
            {"experts": {"count": 4, "scores": "sigmoid"}, "qkv_bias": False},
            "Ernie4_5_MoeForCausalLM comes nearest and lacks sigmoid scores of experts",
        ),
        (
            {"mixers": {"pattern": ["ssm"]}, "mlp": {"kind": "geglu"}, "hidden_size": 32, "qkv_bias": False},
            "GraniteMoeHybridForCausalLM comes nearest and lacks GeGLU beside state-space mixers",
        ),
        (
            {"experts": {"count": 1, "chosen": 1, "shared": 1, "scores": "sigmoid"}},
            "Glm4MoeForCausalLM comes nearest and lacks sigmoid scores of one expert",
        ),
        (
            {"mixers": {"pattern": ["ssm", "attention"]}, "hidden_size": 32, "window": {"tokens": 9}},
            "GraniteMoeHybridForCausalLM comes nearest and lacks a window",
        ),
        (
            {"positions": {"rotary": 0.0}, "head_dim": 5},
            "SmolLM3ForCausalLM comes nearest and lacks heads of an odd width without positions",
        ),
        ({"mixers": {"pattern": ["ssm"]}, "head_dim": 4, "qkv_bias": False}, "lacks heads other than hidden_size /"),
        ({"mlp": {"kind": "kan"}}, "lacks a KAN perceptron"),
        ({"attention": {"kind": "latent"}}, "lacks latent attention with an eps other than 1e-6"),
        (
            {"attention": {"kind": "subspace"}, "mlp": {"kind": "ista"}},
            "LlamaForCausalLM comes nearest and lacks CRATE's sparsifying step",
        ),
        (
            {"parametrisation": MUP, "norm": {"kind": "nonparametric"}, "qkv_bias": False},
            "the output of muP is divided by 2.4, and with tied embeddings and a last norm without gain",
        ),
    ],
    ids=str,
)
def test_what_transformers_does_not_have_is_one_line_and_writes_nothing(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = shape(**changes)
    with pytest.raises(UserError) as error:
        export(tmp_path / "out", Decoder(model, 300).state_dict(), model, 300, tokenizer())
    assert message in str(error.value) and not (tmp_path / "out").exists()
